"""Areas and maxima of ranking curves, computed from counts per distinct score.

Scores that are equal (or share a bin) are tied: every curve has one point per bin, never one inside
it. Where a metric is undefined, because there is nothing normal or nothing defective, it is NaN.
"""

import torch
from torch import Tensor


def auroc(normal: Tensor, defective: Tensor) -> float:
    """Return the area under the ROC curve from counts (bins,) in ascending order of the score."""
    normal, defective = normal.double(), defective.double()
    below = normal.cumsum(0) - normal / 2  # normal ones ranked lower; a tie counts half
    return float((defective * below).sum() / (normal.sum() * defective.sum()))


def average_precision(normal: Tensor, defective: Tensor) -> float:
    """Return the step-wise area under the precision-recall curve from ascending counts (bins,)."""
    true, flagged = _detections(normal, defective)
    return float((defective.flip(0).double() * true / flagged).sum() / true[-1:].sum())


def f1_maximum(normal: Tensor, defective: Tensor) -> float:
    """Return the largest F1 score over all thresholds from ascending counts (bins,)."""
    true, flagged = _detections(normal, defective)
    if not defective.any():
        return float("nan")
    return float((2 * true / (flagged + true[-1])).max())


def _detections(normal: Tensor, defective: Tensor) -> tuple[Tensor, Tensor]:
    """Return, per threshold from the highest down, the true detections and all detections."""
    true = defective.flip(0).cumsum(0).double()
    return true, true + normal.flip(0).cumsum(0)


def area_to_limit(x: Tensor, y: Tensor, limit: float) -> float:
    """Return the area under the line through (0, 0) and points (n,), from x = 0 to `limit`.

    `x` does not decrease. The line is cut exactly at the limit, between two points if need be.
    """
    start = x.new_zeros(1)
    x, y = torch.cat([start, x]), torch.cat([start, y])
    width, rise = x.diff(), y.diff()
    part = ((limit - x[:-1]) / width).clamp(0, 1)  # share of each segment left of the limit
    area = width * part * (y[:-1] + part * rise / 2)
    return float(area[width > 0].sum())
