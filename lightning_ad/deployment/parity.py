"""The gate of an export: what scores otherwise than its detector is not written."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from data_modules.reading.dataset import as_tensor, marked
from data_modules.reading.geometry import Window
from data_modules.reading.images import Pixels
from lightning_ad.deployment.formats import Inputs, Run, Scored
from lightning_ad.deployment.graph import counted_draws
from lightning_ad.deployment.prepare import noise
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.metrics.image import ImageMetrics

TOLERANCE = 1e-4
"""Largest difference in float32, as a share of the range of what is compared."""
AUROC_TOLERANCE = 0.002
"""Largest difference of the image AUROC in less than float32."""
AT_ONCE = 4
"""Images in a batch."""


class ParityError(ValueError):
    """An exported file does not score as its detector does."""


@dataclass(frozen=True)
class Parity:
    """How a file's answers differ from its detector's."""

    images: int
    """How many were compared, half or more of them with a pasted defect."""
    largest_map_difference: float
    """As a share of the range of all maps."""
    largest_score_difference: float
    """As a share of the range of all scores and the threshold."""
    verdicts_that_differ: int
    """Of scores that are not on the threshold, as far as the tolerance tells."""
    image_auroc: float
    """Of the file, by the pasted defects."""
    image_auroc_of_detector: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"on {self.images} images: largest difference of maps "
            f"{self.largest_map_difference:.1e} and of scores {self.largest_score_difference:.1e} "
            f"of their range, {self.verdicts_that_differ} verdicts differ, image AUROC by pasted "
            f"defects {self.image_auroc:.4f}, the detector's {self.image_auroc_of_detector:.4f}"
        )


def scored_by_detector(
    detector: AnomalyDetector,
    pixels: Pixels,
    number: int,
    threshold: float,
    window: Window | None = None,
) -> tuple[Scored, int]:
    """What a detector says of pixels (N, H, W, 3), and how often it draws noise for each.

    Outside of the ``window`` they are padding.
    """
    found = []
    with counted_draws(detector) as draws:
        for part in _parts(pixels, "scoring by the detector"):
            image = torch.stack([as_tensor(each) for each in part])
            category = torch.full((len(image),), number)
            judged = None
            if window is not None:
                judged = marked(window, part.shape[1:3]).expand(len(image), -1, -1, -1)
            detection = detector.detect(image, category, judged)
            score = detection.score.numpy()
            found.append(Scored(detection.anomaly_map[:, 0].numpy(), score, score > threshold))
    return _joined(found), max(draws, default=0)


def scored_by_file(run: Run, pixels: Pixels, threshold: float, draws: int) -> Scored:
    """What an exported file says of pixels (N, H, W, 3)."""
    parts = _parts(pixels, "scoring by the file")
    return _joined([run(inputs_of(part, threshold, draws)) for part in parts])


def inputs_of(pixels: Pixels, threshold: float, draws: int) -> Inputs:
    """The inputs of a graph for pixels (N, H, W, 3)."""
    inputs: Inputs = {"image": pixels, "threshold": np.array(threshold, np.float32)}
    if draws:
        inputs["noise"] = np.stack([noise(each, draws) for each in pixels])
    return inputs


def compared(expected: Scored, found: Scored, threshold: float, defective: list[bool]) -> Parity:
    """How two answers to the same images differ."""
    span = float(np.ptp(np.append(expected.score, threshold)))
    near = np.abs(expected.score - threshold) <= TOLERANCE * span
    return Parity(
        len(defective),
        _relative(found.anomaly_map, expected.anomaly_map, float(np.ptp(expected.anomaly_map))),
        _relative(found.score, expected.score, span),
        int(((expected.anomalous != found.anomalous) & ~near).sum()),
        _auroc(found.score, defective),
        _auroc(expected.score, defective),
    )


def require_equal(parity: Parity, precision: str) -> None:
    """Raise a ParityError unless a file does what is promised of its precision."""
    differences = parity.largest_map_difference, parity.largest_score_difference
    if precision == "float32":
        equal = max(differences) <= TOLERANCE and not parity.verdicts_that_differ
        promised = f"{TOLERANCE:g} of the range and no verdict"
    else:
        lost = abs(parity.image_auroc - parity.image_auroc_of_detector)
        equal = bool(np.isfinite(differences).all()) and lost <= AUROC_TOLERANCE
        promised = f"{AUROC_TOLERANCE:g} of the image AUROC"
    if not equal:
        raise ParityError(
            f"the {precision} file is not written, it differs from its detector by more than "
            f"{promised}: {parity}"
        )


def _parts(pixels: Pixels, doing: str) -> Iterable[Pixels]:
    starts = range(0, len(pixels), AT_ONCE)
    parts = [pixels[start : start + AT_ONCE] for start in starts]
    return track(parts, doing, console=Console(stderr=True), disable=len(parts) < 4)


def _joined(parts: list[Scored]) -> Scored:
    return Scored(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _relative(found: NDArray[Any], expected: NDArray[Any], span: float) -> float:
    largest = np.abs(found.astype(np.float64) - expected).max()
    return float(largest / max(span, 1e-12))


def _auroc(score: NDArray[Any], defective: list[bool]) -> float:
    if not np.isfinite(score).all():
        return float("nan")
    metrics = ImageMetrics()
    metrics.update(torch.from_numpy(score), torch.tensor(defective))
    return metrics.compute()["image_auroc"]
