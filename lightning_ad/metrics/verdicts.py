"""How many images were judged rightly: good ones that passed, defects that were found."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

CONFIDENCE = 0.95
ALL = "all"
"""Stands for the images of all categories together; no category is called so."""


class ImageVerdict(NamedTuple):
    """A test image and what was said about it."""

    path: str
    category: str
    kind: str
    """Of defect."""
    label: int
    verdict: str | None


@dataclass
class Verdicts:
    """Counts of a category's judged images, the good ones and the defective ones by kind."""

    good: int = 0
    passed: int = 0
    defective: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    not_judged: int = 0

    def add(self, image: ImageVerdict) -> None:
        """Count an image."""
        if image.verdict == "not judged":
            self.not_judged += 1
        elif image.label:
            self.defective[image.kind] += 1
            self.found[image.kind] += image.verdict == "anomalous"
        else:
            self.good += 1
            self.passed += image.verdict == "normal"

    @property
    def false_alarms(self) -> tuple[float, float]:
        """Between which rates the true share of false alarms lies, in 95 of 100 such tests.

        Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the
        binomial", Biometrika 26, 1934. From 0 to 1 if there was no good image.
        """
        if not self.good:
            return 0.0, 1.0
        alarms, unlikely = self.good - self.passed, (1 - CONFIDENCE) / 2
        low = 1 - _rate(self.passed, self.good, unlikely) if alarms else 0.0
        return low, _rate(alarms, self.good, unlikely) if self.passed else 1.0

    def fields(self) -> dict[str, int | float]:
        """The counts by name, as metrics.json has them."""
        low, high = self.false_alarms
        counts: dict[str, int | float] = {
            "good": self.good,
            "good_passed": self.passed,
            "false_alarms_low": low,
            "false_alarms_high": high,
            "defective": self.defective.total(),
            "defects_found": self.found.total(),
            "not_judged": self.not_judged,
        }
        for kind, number in sorted(self.defective.items()):
            counts |= {f"{kind}/defective": number, f"{kind}/defects_found": self.found[kind]}
        return counts


def count_verdicts(
    images: Iterable[ImageVerdict], categories: Sequence[str]
) -> dict[str, Verdicts]:
    """The verdicts of each category with images that have one, and of `ALL` of them."""
    counts = {name: Verdicts() for name in (*categories, ALL)}
    for image in images:
        if image.verdict is not None:
            counts[image.category].add(image)
            counts[ALL].add(image)
    return {name: each for name, each in counts.items() if each != Verdicts()}


def _rate(most: int, of: int, probability: float) -> float:
    """The rate at which no more than ``most < of`` of so many have this probability."""
    low, high = 0.0, 1.0
    for _ in range(50):  # halves the interval to the last digits
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(most, of, middle) > probability else (low, middle)
    return middle


def _at_most(most: int, of: int, rate: float) -> float:
    """The binomial distribution, without SciPy's 35 MB."""
    ways = math.lgamma(of + 1)
    return math.fsum(
        math.exp(
            ways
            - math.lgamma(k + 1)
            - math.lgamma(of - k + 1)
            + k * math.log(rate)
            + (of - k) * math.log1p(-rate)
        )
        for k in range(most + 1)
    )
