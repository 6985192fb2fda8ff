"""Settings that calibration chooses, without a label: by defects pasted on held-out normal images.

Which noise level scores best depends on the part, and only real defects would tell for certain.
Pasted ones tell well enough which of a few values locates what does not belong: each held-out image
is scored beside a defective copy (`lightning_ad.callbacks.objective`) with every value, and each
category gets the one with the highest average precision of pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.objective import held_out_names, with_defects
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.metrics.detection import DetectionMetrics

Observe = Callable[[Tensor, Tensor, list[str]], None]


def passes(detector: AnomalyDetector) -> int:
    """How often each held-out image is scored before it is for the thresholds."""
    return sum(2 * len(values) for values in detector.choices.values())


def choose(
    detector: AnomalyDetector, data: AnomalyDataModule, look: Callable[[Observe], None]
) -> None:
    """Put what is chosen of each of ``detector.choices`` into its calibration.

    ``look`` shows this process's share of the held-out images to a function of images (B, 3, H, W),
    categories (B,) and paths. The metrics are those of all processes.
    """
    names = held_out_names(data)
    groups = [*detector.categories, "mean"]  # the last for images of no known category
    for setting, values in detector.choices.items():
        found = []
        for value in values:
            detector.calibration[setting] = torch.full((len(groups),), value)
            metrics = DetectionMetrics(detector.categories).to(detector.device)
            look(_judge(detector, metrics, names))
            achieved = metrics.compute()
            found.append([achieved[f"{group}/pixel_auprc"] for group in groups])
        best = torch.tensor(found, dtype=torch.float64).nan_to_num(-1).argmax(0)
        detector.calibration[setting] = torch.tensor(values)[best]


def _judge(detector: AnomalyDetector, metrics: DetectionMetrics, names: dict[str, str]) -> Observe:
    """Add images and their defective copies to the metrics."""

    def observe(image: Tensor, category: Tensor, path: list[str]) -> None:
        normal = {"image": image.cpu(), "category": category.cpu(), "path": path}
        normal |= {"mask": torch.zeros(len(image), 1, *image.shape[2:], dtype=torch.uint8)}
        normal |= {"label": torch.zeros(len(image), dtype=torch.long)}
        for batch in (normal, with_defects(normal, detector.categories, names)):
            found = detector.detect(batch["image"].to(image.device), category)
            mask, label = batch["mask"].to(image.device), batch["label"].to(image.device)
            metrics.update(found.anomaly_map, mask, found.score, label, category)

    return observe
