"""The curves whose areas `curves` and `aupro` give, as points to be drawn.

A point per distinct score (or bin), from the highest threshold down, of which `thinned` keeps what
an eye can tell apart. Where a curve is undefined, it has no points.
"""

import torch
from torch import Tensor

POINTS = 300
"""Of a curve as it is drawn: neighbours are about 2 / 300 apart, sideways and up together."""


def roc(normal: Tensor, defective: Tensor) -> Tensor:
    """Points (n, 2) of false-positive and true-positive rate, from (0, 0) to (1, 1).

    All functions here take counts (bins,) in ascending order of the score.
    """
    return _rates(normal, defective)


def pro(normal: Tensor, overlap: Tensor, limit: float) -> Tensor:
    """Points (n, 2) of false-positive rate and mean overlap of the regions, cut at ``limit``."""
    points = _rates(normal, overlap)
    inside = points[points[:, 0] <= limit]
    if len(inside) == len(points):
        return inside
    (x, y), (next_x, next_y) = points[len(inside) - 1], points[len(inside)]
    at_limit = y + (limit - x) / (next_x - x) * (next_y - y)
    return torch.cat([inside, torch.stack([x.new_tensor(limit), at_limit])[None]])


def precision_recall(normal: Tensor, defective: Tensor) -> Tensor:
    """Points (n, 2) of recall and precision, from the highest threshold down."""
    true, false = _from_the_top(defective), _from_the_top(normal)
    if not defective.any():
        return torch.zeros(0, 2, dtype=torch.double)
    return torch.stack([true / true[-1], true / (true + false)], dim=1)


def thinned(points: Tensor) -> list[list[float]]:
    """At most `POINTS` of the points (n, 2), evenly spread along the curve, both ends kept."""
    if len(points) > POINTS:
        way = points.diff(dim=0).abs().sum(1).cumsum(0)
        wanted = torch.linspace(0, float(way[-1]), POINTS - 1, dtype=way.dtype)
        chosen = torch.searchsorted(way, wanted).clamp(max=len(way) - 1) + 1
        points = points[torch.cat([chosen.new_zeros(1), chosen]).unique()]
    return points.tolist()


def _rates(normal: Tensor, found: Tensor) -> Tensor:
    x, y = _from_the_top(normal), _from_the_top(found)
    if not normal.any() or not found.any():
        return torch.zeros(0, 2, dtype=torch.double)
    points = torch.stack([x / x[-1], y / y[-1]], dim=1)
    return torch.cat([points.new_zeros(1, 2), points])


def _from_the_top(counts: Tensor) -> Tensor:
    return counts.flip(0).cumsum(0).double().cpu()
