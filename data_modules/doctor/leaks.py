"""Finds images that show what a training image shows, among the test and the held-out images.

Where good test images repeat training images and defective ones do not, image metrics measure
recognition: so both are counted, and only a difference is a problem. What held-out images repeat
makes thresholds too low.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.catalogue import Catalogue
from data_modules.doctor.examine import Finding
from data_modules.doctor.likeness import SAME, Vectors, description
from data_modules.neighbour import auroc, neighbour_distances
from data_modules.problems import Problem
from data_modules.reading.images import Pixels

LEAK = 0.05  # by how much the share of good images has to exceed that of defective ones


@dataclass(frozen=True)
class Repeat:
    """An image and the training image most like it."""

    image: Path
    training: Path
    likeness: float


@dataclass(frozen=True)
class Repeats:
    """Images of one kind that repeat a training image, the most alike first, of so many."""

    found: list[Repeat]
    of: int

    @property
    def share(self) -> float:
        """Share of the images that repeat a training image."""
        return len(self.found) / max(self.of, 1)

    def __str__(self) -> str:
        return f"{len(self.found)} of {self.of}"


@dataclass(frozen=True)
class Leaks:
    """What one category's images repeat, and the image AUROC of its trivial neighbour."""

    category: str
    good: Repeats
    defective: Repeats
    held_out: Repeats
    neighbour_auroc: float | None

    @property
    def is_leak(self) -> bool:
        """Whether good test images are recognised and defective ones are not."""
        return self.good.share - self.defective.share > LEAK

    @property
    def verdict(self) -> str:
        """What the trivial neighbour's figure means."""
        if self.neighbour_auroc is None:
            return "needs good and defective test images"
        if self.is_leak:
            return "too high, for the wrong reason: good test images repeat training ones"
        return "what 256 grey pixels tell"


def find_leaks(data: Catalogue, findings: Sequence[Finding]) -> Iterator[Leaks]:
    """One result per category, from the doctor's findings in the order of the records."""
    by_category = defaultdict(list)
    for finding in findings:
        by_category[finding.record.category].append(finding)
    for category in data.categories:
        of_category = by_category[category]
        train = [finding for finding in of_category if finding.record.split == "train"]
        held = data.is_held_out([finding.record for finding in train])
        yield _of_category(
            category,
            trained=[f for f, is_held in zip(train, held, strict=True) if not is_held],
            held_out=[f for f, is_held in zip(train, held, strict=True) if is_held],
            tested=[finding for finding in of_category if finding.record.split == "test"],
        )


def _of_category(
    category: str, trained: list[Finding], held_out: list[Finding], tested: list[Finding]
) -> Leaks:
    trained, held_out, tested = map(_readable, (trained, held_out, tested))
    train = trained + held_out
    figure = None
    if train and tested:
        scores = neighbour_distances(_thumbnails(train), _thumbnails(tested))
        figure = auroc(scores, [finding.record.label for finding in tested])
    describe = description(_thumbnails(train)) if train else None
    good = [finding for finding in tested if not finding.record.label]
    defective = [finding for finding in tested if finding.record.label]
    return Leaks(
        category,
        _repeats(good, train, describe),
        _repeats(defective, train, describe),
        _repeats(held_out, trained, describe),
        figure,
    )


def _repeats(
    some: list[Finding], training: list[Finding], describe: Callable[[Pixels], Vectors] | None
) -> Repeats:
    if describe is None or not some or not training:
        return Repeats([], len(some))
    likeness = describe(_thumbnails(some)) @ describe(_thumbnails(training)).T
    best = likeness.max(axis=1)
    found = [
        Repeat(
            some[row].record.image,
            training[likeness[row].argmax()].record.image,
            round(float(best[row]), 3),
        )
        for row in np.argsort(-best)
        if best[row] >= SAME
    ]
    return Repeats(found, len(some))


def _readable(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.thumbnail is not None]


def _thumbnails(findings: list[Finding]) -> Pixels:
    return np.stack([f.thumbnail for f in findings if f.thumbnail is not None])


def leak_problems(leaks: Leaks, root: Path) -> Iterator[tuple[bool, Problem]]:
    """What is found, each with whether it has to be repaired."""
    if leaks.is_leak:
        detail = (
            f"of {leaks.category}: {leaks.good} good test images but {leaks.defective} defective "
            "ones show what a training image shows: metrics will measure recognition"
        )
        yield True, Problem("leak", root, detail)
    for kind, repeats in (
        ("test image repeats training", [*leaks.good.found, *leaks.defective.found]),
        ("held-out image repeats training", leaks.held_out.found),
    ):
        for repeat in repeats:
            detail = f"shows what {repeat.training} shows (likeness {repeat.likeness:.2f})"
            yield False, Problem(kind, repeat.image, detail)


def leaks_json(leaks: Leaks) -> dict[str, Any]:
    """As JSON values; the pairs themselves are among the diagnosis's notes."""
    kinds = {"good": leaks.good, "defective": leaks.defective, "held_out": leaks.held_out}
    return {
        "category": leaks.category,
        **{
            kind: {"repeat": len(repeats.found), "of": repeats.of}
            for kind, repeats in kinds.items()
        },
        "neighbour_auroc": leaks.neighbour_auroc,
        "leak": leaks.is_leak,
        "verdict": leaks.verdict,
    }
