"""Area under the per-region-overlap curve, every defect counting the same whatever its size.

The overlap of a threshold is the mean, over the 8-connected regions of the ground truth, of the
share of the region that scores above it. Bergmann et al., "The MVTec Anomaly Detection Dataset",
IJCV 2021, section 5.1.2. Written as a sum over pixels, a defective pixel weighs 1 / area of its
region, so the curve needs counts per score only and no loop over thresholds or regions.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from lightning_ad.metrics.curves import area_to_limit

# Weights are whole multiples of 2^-40, because integers add up to the same sum in any order:
# room for 8 million regions, and one of 1000 x 1000 pixels is off by less than a millionth.
REGION_WEIGHT = 2**40


def check_limit(fpr_limit: float) -> None:
    """Raise a ValueError unless the false-positive rate that ends the integral is in (0, 1]."""
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must lie in (0, 1], got {fpr_limit}")


def region_weights(defective: Tensor) -> Tensor:
    """Return the int64 weight REGION_WEIGHT / area of each defective pixel, in row-major order.

    `defective` (N, H, W) is boolean; regions are 8-connected and never cross images.
    """
    weights = [torch.zeros(0, dtype=torch.long)]
    for mask in defective[defective.flatten(1).any(1)].cpu().numpy():
        _, region, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
        area = np.maximum(statistics[:, cv2.CC_STAT_AREA], 1)  # the background's may be 0
        weight = np.rint(REGION_WEIGHT / area).astype(np.int64)
        weights.append(torch.from_numpy(weight[region[mask]]))
    return torch.cat(weights).to(defective.device)


def aupro(normal: Tensor, overlap: Tensor, fpr_limit: float) -> float:
    """Return the area up to the false-positive rate `fpr_limit`, divided by the limit.

    `normal` counts all normal pixels and `overlap` sums the region weights of the defective ones,
    both (bins,) in ascending order of the score; NaN without either.
    """
    if not normal.any() or not overlap.any():
        return float("nan")
    false_positives, overlaps = normal.flip(0).cumsum(0), overlap.flip(0).cumsum(0)
    fpr = false_positives.double() / false_positives[-1]
    return area_to_limit(fpr, overlaps.double() / overlaps[-1], fpr_limit) / fpr_limit
