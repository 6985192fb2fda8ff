"""Distances between an image and its reconstruction, as anomaly maps: pure functions on tensors.

Maps are float32 and (B, 1, H, W): in bfloat16 the distances themselves err by up to a tenth.
Sources: DDAD, arXiv 2305.15956, section 3.3; D3AD; DeCo-Diff, arXiv 2503.19357.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over channels of |a - b|, (B, C, H, W) -> (B, 1, H, W) (DDAD, eq. 9)."""
    return (a.float() - b.float()).abs().mean(1, keepdim=True)


def feature_distance(
    a: list[Tensor], b: list[Tensor], size: tuple[int, int], pool: int = 1
) -> Tensor:
    """Sum over layers of 1 - cosine of two pyramids, (B, 1, *size) (DDAD, eq. 10).

    Each layer (B, C, h, w) is averaged over ``pool`` x ``pool`` patches (zero-padded), its map
    is resized bilinearly to ``size`` with aligned corners.
    """
    total = torch.zeros(a[0].shape[0], 1, *size, device=a[0].device)
    for layer_a, layer_b in zip(a, b, strict=True):
        smooth_a, smooth_b = (
            F.avg_pool2d(layer.float(), pool, 1, pool // 2) for layer in (layer_a, layer_b)
        )
        distance = 1 - F.cosine_similarity(smooth_a, smooth_b, dim=1).unsqueeze(1)
        total += resize(distance, size)
    return total


def ratio_of_maxima(feature: Tensor, pixel: Tensor) -> Tensor:
    """How many times as large feature distances are as pixel distances, from maxima (N,) of both.

    max D_f / max D_p in DDAD, eq. 11; of several images, the ratio of the means.
    """
    return (feature.double().mean() / pixel.double().mean().clamp(min=1e-12)).float()


def balanced(parts: dict[str, Tensor], ratio: Tensor, weight: float, sigma: float) -> Tensor:
    """D = D_f + v ratio D_p (DDAD, eq. 11) of maps ``feature`` and ``pixel``, blurred."""
    weighted = weight * ratio.to(parts["pixel"].device) * parts["pixel"]
    return gaussian_blur(parts["feature"] + weighted, sigma)


def mean_of_largest(maps: Tensor, count: float) -> Tensor:
    """Mean (B,) of so many of the largest values, or of the largest one, of maps (B, 1, H, W)."""
    values = maps.flatten(1)
    return values.topk(max(1, round(count))).values.mean(1)


def resize(map: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly with aligned corners to (B, C, *size)."""
    return F.interpolate(map, size, mode="bilinear", align_corners=True)


def from_cells(map: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, C, h, w) bilinearly to (B, C, *size), each value in the middle of its cell."""
    if map.shape[-2:] == size:
        return map
    return F.interpolate(map, size, mode="bilinear", align_corners=False)


def gaussian_blur(image: Tensor, sigma: float, kernel_size: int | None = None) -> Tensor:
    """Gaussian blur of (B, C, H, W), sigma in pixels, borders reflected.

    The kernel reaches four sigma to each side unless ``kernel_size`` (odd) is given, and never past
    what reflection allows in a small image. A sigma of 0 leaves the image as it is.
    """
    if sigma == 0:
        return image
    reach = round(4 * sigma) if kernel_size is None else kernel_size // 2
    reach = min(reach, min(image.shape[-2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, device=image.device, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).repeat(image.shape[1], 1, 1, 1)  # (C, 1, 1, kernel)
    with torch.autocast(image.device.type, enabled=False):  # autocast would blur in half precision
        padded = F.pad(image.float(), (reach,) * 4, mode="reflect")
        rows = F.conv2d(padded, weights, groups=image.shape[1])
        return F.conv2d(rows, weights.transpose(2, 3), groups=image.shape[1])
