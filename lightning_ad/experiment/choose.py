"""Settings that calibration chooses, without a label: by defects pasted on held-out normal images.

Which noise level scores best depends on the part, and only real defects would tell for certain.
Pasted ones tell well enough which of a few values locates what does not belong: each held-out image
is scored beside a defective copy (`lightning_ad.callbacks.objective`) with every value, and each
category gets the one with the highest average precision of pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.objective import held_out_names, with_defects
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.judged import JUDGED
from lightning_ad.metrics.detection import DetectionMetrics

Observe = Callable[[Any, Tensor], None]
"""Takes in a batch of the data and the detector's own categories (B,) of its images."""


def passes(detector: AnomalyDetector) -> int:
    """How often each held-out image is scored before it is for the thresholds."""
    return sum(2 * len(values) for values in detector.choices.values())


def choose(
    detector: AnomalyDetector,
    data: AnomalyDataModule,
    look: Callable[[Observe], None],
    device: torch.device,
) -> None:
    """Put what is chosen of each of ``detector.choices`` into its calibration.

    ``look`` shows this process's share of the held-out images to a function, on ``device``. The
    metrics are those of all processes.
    """
    names = held_out_names(data)
    groups = [*detector.categories, "mean"]  # the last for images of no known category
    for setting, values in detector.choices.items():
        found = []
        for value in values:
            detector.calibration[setting] = torch.full((len(groups),), value)
            metrics = DetectionMetrics(detector.categories).to(device)
            look(_judge(detector, metrics, names))
            achieved = metrics.compute()
            found.append([achieved[f"{group}/pixel_auprc"] for group in groups])
        best = torch.tensor(found, dtype=torch.float64).nan_to_num(-1).argmax(0)
        detector.calibration[setting] = torch.tensor(values)[best]


def _judge(detector: AnomalyDetector, metrics: DetectionMetrics, names: dict[str, str]) -> Observe:
    """Add images and their defective copies to the metrics."""

    def observe(batch: Any, category: Tensor) -> None:
        normal = {**batch, "image": batch["image"].cpu(), "category": category.cpu()}
        for seen in (normal, with_defects(normal, detector.categories, names)):
            image, mask, label = (seen[n].to(category.device) for n in ("image", "mask", "label"))
            judged = batch.get(JUDGED)
            found = detector.detect(image, category, judged)
            metrics.update(found.anomaly_map, mask, found.score, label, category, judged=judged)

    return observe
