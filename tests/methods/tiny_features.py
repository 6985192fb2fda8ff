"""Methods in feature space without a data set: what a calibration does for them, in a few lines."""

from typing import Any

import torch
from torch import Tensor

from lightning_ad.detector.feature_space import FeatureSpaceDetector
from tests.methods.tiny import tiny_pyramid

CATEGORIES = ["bottle", "screw"]


def images(count: int, brightness: float = 0.0, seed: int = 0, size: int = 16) -> Tensor:
    """Noisy images (count, 3, size, size) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size, size, generator=generator)
    return (brightness + 0.3 * noise).clamp(-1, 1)


def learned(detector: FeatureSpaceDetector, by_category: list[Tensor]) -> FeatureSpaceDetector:
    """The detector after its memory passes over images of each category, in batches of three."""
    detector.match_categories(CATEGORIES[: len(by_category)], "validate")
    counts = map(len, by_category)
    detector.training_images = dict(zip(detector.categories, counts, strict=True))
    detector.channels = [layer.shape[1] for layer in detector.features(by_category[0][:1])]
    numbers = torch.repeat_interleave(torch.tensor([len(part) for part in by_category]))
    paths = [f"{number}.png" for number in range(len(numbers))]
    for memory in detector.memory_passes(torch.device("cpu")):
        with torch.inference_mode():
            for rows in torch.arange(len(numbers)).split(3):
                batch = torch.cat(by_category)[rows]
                memory.observe(batch, numbers[rows], [paths[row] for row in rows.tolist()])
        memory.finish()
    return detector.eval()


def fitted(
    method: type[FeatureSpaceDetector], by_category: list[Tensor] | None = None, **settings: Any
) -> FeatureSpaceDetector:
    """A method on a tiny pyramid after its memory passes, over twelve images unless others come."""
    detector = method(tiny_pyramid(), **{"components": 5, "blur": 1.0, **settings})
    return learned(detector, by_category or [images(12)])
