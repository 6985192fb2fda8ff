"""Score the anomaly maps of any tool with the definitions used here."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lightning_ad.metrics.counts import require_finite
from lightning_ad.metrics.detection import warn_undefined
from lightning_ad.metrics.image import ImageMetrics, image_metrics
from lightning_ad.metrics.pixel import PixelMetrics, pixel_metrics

Array = np.ndarray | Tensor

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
    `image_scores` (N,), ranked in float32 too, default to each map's maximum and `labels` (N,), 0
    or 1, to whether the mask has a defect. AUPRO is integrated to the false-positive rate
    `fpr_limit`. `exact` keeps every distinct score instead of about 10^5 bins. Values are in
    [0, 1], or NaN (with one warning) where undefined. Raises ValueError or TypeError naming the
    argument that does not fit.
    """
    maps, truth = _array(anomaly_maps, "anomaly_maps"), _array(masks, "masks")
    _check_maps(maps, truth)
    device = maps.device if isinstance(maps, Tensor) else torch.device("cpu")
    pixels = PixelMetrics(fpr_limit, exact).to(device)
    scores = torch.empty(len(maps), device=device)
    defects = torch.empty(len(maps), dtype=torch.bool, device=device)
    step = max(1, PIXELS_AT_ONCE // math.prod(maps.shape[1:]))
    for start in range(0, len(maps), step):
        part = slice(start, start + step)
        piece, mask = _tensor(maps[part]).float(), _tensor(truth[part]).to(device)
        require_finite(piece, [f"anomaly_maps[{start + i}]" for i in range(len(piece))])
        pixels.update(piece, _binary(mask, "masks"))
        scores[part], defects[part] = piece.amax((1, 2)), mask.flatten(1).any(1)
    if image_scores is not None:
        scores = _per_image(image_scores, "image_scores", len(maps)).float().to(device)
        require_finite(scores[:, None], [f"image_scores[{index}]" for index in range(len(maps))])
    if labels is not None:
        defects = _labels(_per_image(labels, "labels", len(maps))).to(device)
    images = ImageMetrics().to(device)
    images.update(scores, defects)
    # Not compute(): that would wait for the other processes of a distributed run.
    results = image_metrics(images.merged()) | pixel_metrics(pixels.final(), fpr_limit)
    undefined = [name for name, value in results.items() if math.isnan(value)]
    if undefined:
        warn_undefined(undefined)
    return results


def _array(values: ArrayLike | Tensor, name: str) -> Array:
    if isinstance(values, Tensor):
        return values.detach()
    try:
        array = np.asarray(values)
    except (ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected one array of numbers, got {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def _tensor(values: Array) -> Tensor:
    """A tensor of its own; of an array in whatever byte order and memory layout."""
    if isinstance(values, Tensor):
        return values
    wide = values.dtype.itemsize > 8  # more than a tensor holds
    return torch.from_numpy(
        np.array(values, np.float64 if wide else values.dtype.newbyteorder("="))
    )


def _check_maps(maps: Array, masks: Array) -> None:
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"anomaly_maps: expected non-empty (N, H, W), got {tuple(maps.shape)}")
    if masks.shape != maps.shape:
        expected, got = tuple(maps.shape), tuple(masks.shape)
        raise ValueError(f"masks: expected the shape of anomaly_maps {expected}, got {got}")


def _per_image(values: ArrayLike | Tensor, name: str, images: int) -> Tensor:
    tensor = _tensor(_array(values, name))
    if tensor.shape != (images,):
        expected, got = (images,), tuple(tensor.shape)
        raise ValueError(f"{name}: expected one value per map, shape {expected}, got {got}")
    return tensor


def _binary(values: Tensor, name: str) -> Tensor:
    if values.is_floating_point() and not ((values == 0) | (values == 1)).all():
        raise ValueError(
            f"{name}: floating-point values must be 0 or 1; binarise grey values first "
            "(for a mask: at half of its maximum, before any resizing)"
        )
    return values.bool()


def _labels(values: Tensor) -> Tensor:
    if not ((values == 0) | (values == 1)).all():
        raise ValueError(f"labels: expected 0 (normal) or 1 (defective), got {values.tolist()}")
    return values.bool()
