"""Score the anomaly maps of any tool with the definitions used here."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_ad.metrics.detection import warn_undefined
from lightning_ad.metrics.histogram import require_finite
from lightning_ad.metrics.image import ImageMetrics, image_metrics
from lightning_ad.metrics.pixel import PixelMetrics, pixel_metrics

PIXELS_AT_ONCE = 2**20  # keeps the working memory below 100 MB however many maps there are


def evaluate_maps(
    anomaly_maps: ArrayLike | Tensor,
    masks: ArrayLike | Tensor,
    image_scores: ArrayLike | Tensor | None = None,
    labels: ArrayLike | Tensor | None = None,
    fpr_limit: float = 0.3,
    exact: bool = False,
) -> dict[str, float]:
    """Return the three image and four pixel metrics of one category's test images.

    `anomaly_maps` (N, H, W) hold finite numbers, higher meaning more anomalous, ranked in float32;
    `masks` (N, H, W) are boolean, integer (non-zero is defective) or float (only 0 and 1).
    `image_scores` (N,) default to each map's maximum and `labels` (N,), 0 or 1, to whether the mask
    has a defect. AUPRO is integrated to the false-positive rate `fpr_limit`. `exact` keeps every
    distinct score instead of about 10^5 bins. Values are in [0, 1], or NaN (with one warning)
    where undefined. Raises ValueError or TypeError naming the argument that does not fit.
    """
    maps, truth = _tensor(anomaly_maps), _tensor(masks)
    _check_maps(maps, truth)
    pixels = PixelMetrics(fpr_limit, exact).to(maps.device)
    scores = torch.empty(len(maps), device=maps.device)
    defects = torch.empty(len(maps), dtype=torch.bool, device=maps.device)
    step = max(1, PIXELS_AT_ONCE // maps[0].numel())
    for start in range(0, len(maps), step):
        part = slice(start, start + step)
        piece, mask = maps[part].float(), truth[part].to(maps.device)
        require_finite(piece, [f"anomaly_maps[{start + i}]" for i in range(len(piece))])
        pixels.update(piece, _binary(mask, "masks"))
        scores[part], defects[part] = piece.amax((1, 2)), mask.flatten(1).any(1)
    if image_scores is not None:
        scores = _per_image(image_scores, "image_scores", maps).float()
        require_finite(scores[:, None], [f"image_scores[{index}]" for index in range(len(maps))])
    if labels is not None:
        defects = _binary(_per_image(labels, "labels", maps), "labels")
    images = ImageMetrics().to(maps.device)
    images.update(scores, defects)
    # Not compute(): that would wait for the other processes of a distributed run.
    results = image_metrics(images.merged()) | pixel_metrics(pixels.merged(), fpr_limit)
    undefined = [name for name, value in results.items() if math.isnan(value)]
    if undefined:
        warn_undefined(undefined)
    return results


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    return values.detach() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))


def _check_maps(maps: Tensor, masks: Tensor) -> None:
    if maps.ndim != 3 or maps.numel() == 0:
        raise ValueError(f"anomaly_maps: expected non-empty (N, H, W), got {tuple(maps.shape)}")
    if masks.shape != maps.shape:
        expected, got = tuple(maps.shape), tuple(masks.shape)
        raise ValueError(f"masks: expected the shape of anomaly_maps {expected}, got {got}")


def _per_image(values: ArrayLike | Tensor, name: str, maps: Tensor) -> Tensor:
    tensor = _tensor(values).to(maps.device)
    if tensor.shape != maps.shape[:1]:
        expected, got = (len(maps),), tuple(tensor.shape)
        raise ValueError(f"{name}: expected one value per map, shape {expected}, got {got}")
    return tensor


def _binary(values: Tensor, name: str) -> Tensor:
    if values.is_floating_point() and not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{name}: floating-point values must be 0 or 1; binarise grey values first "
            "(for a mask: at half of its maximum, before any resizing)"
        )
    return values.bool()
