"""How far a normal image deviates at each place, so that only what exceeds it counts.

A reconstruction is never equally good everywhere: borders, edges and fine texture deviate on normal
parts, too, and drown what is small. Held-out normal images tell the mean and the deviation of each
map at each place; maps are then taken relative to both. For parts that lie alike in all images.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.judged import JUDGED, maps_in
from lightning_ad.detector.per_category import members
from lightning_ad.detector.processes import Rows, of_all_processes
from lightning_ad.maths import maps

FEWEST = 3
"""Images of a category: of two others a deviation can be told."""
SMOOTHING = 1 / 16
"""Sigma of the Gaussian that smooths what is learned, as a share of a map's side: two cells of the
32 x 32 that features have at 256 pixels."""
FLOOR = 0.1
"""Share of a map's overall deviation that is added to that of each place."""


class Moments:
    """Sums over held-out images, for each category and, last, over all.

    Where ``judged`` (N, 1, H, W) is given, an image only counts where it is judged.
    """

    def __init__(
        self, maps_of_all: Tensor, category: Tensor, categories: int, judged: Tensor | None = None
    ) -> None:
        groups = members(category, categories)
        counted = torch.ones(len(maps_of_all), 1, 1, 1) if judged is None else judged
        self.count = torch.stack([counted[group].long().sum(0) for group in groups])
        values = maps_of_all if judged is None else maps_of_all * judged
        self.sum = torch.stack([values[group].double().sum(0) for group in groups])
        self.square = torch.stack([values[g].double().square().sum(0) for g in groups])

    def add(self, other: "Moments") -> "Moments":
        """Add another process's sums."""
        self.count = self.count + other.count
        self.sum, self.square = self.sum + other.sum, self.square + other.square
        return self

    def without(
        self, one: Tensor, category: Tensor, judged: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and deviation (B, 1, H, W) for maps (B, 1, H, W), from all others of their kind."""
        counted = 1 if judged is None else judged.long()
        value = one.double() * counted
        return _smooth_moments(
            self.count[category] - counted,
            self.sum[category] - value,
            self.square[category] - value.square(),
        )

    def all(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (categories + 1, 1, H, W)."""
        return _smooth_moments(self.count, self.sum, self.square)


def _smooth_moments(count: Tensor, total: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    known = (count >= FEWEST - 1).expand_as(total)
    mean = _filled(total / count, known)
    variance = _filled((square / count - mean.square()).clamp(min=0), known)
    sigma = SMOOTHING * min(mean.shape[-2:])
    overall = variance.mean((2, 3), keepdim=True).sqrt()
    deviation = maps.gaussian_blur(variance.float(), sigma).sqrt() + FLOOR * overall.float()
    return maps.gaussian_blur(mean.float(), sigma), deviation.clamp(min=1e-12)


def _filled(values: Tensor, known: Tensor) -> Tensor:
    """Values (G, 1, H, W), where too few images are known replaced by the mean of other places."""
    total = torch.where(known, values, 0).sum((2, 3), keepdim=True)
    return torch.where(known, values, total / known.sum((2, 3), keepdim=True).clamp(min=1))


def learn_normals(calibration: Calibration, batches: list[Rows], categories: int) -> None:
    """Keep mean and deviation of each map over all processes' held-out images.

    ``batches`` hold ``category``, ``path`` and maps (B, 1, H, W) by name; the maps are replaced by
    what `relative` makes of them with the statistics of all other images, as if each were new: the
    thresholds that follow would else be too low.

    Raises:
        ValueError: if a category has fewer than `FEWEST` images.
    """
    names = list(maps_in(batches[0])) if batches else []
    names = next(own for own in of_all_processes(names) if own)
    for name in names:
        moments = _of_everyone(batches, name, categories)
        if int(moments.count[:-1].amax((1, 2, 3)).min()) < FEWEST:
            raise ValueError(
                f"model.standardize needs {FEWEST} or more held-out normal images of each category:"
                " raise data.val_fraction, or leave it out"
            )
        calibration[f"{name}_mean"], calibration[f"{name}_deviation"] = moments.all()
        for rows in batches:
            mean, deviation = moments.without(rows[name], rows["category"], rows.get(JUDGED))
            rows[name] = relative(rows[name], mean, deviation)


def _of_everyone(batches: list[Rows], name: str, categories: int) -> Moments:
    own = None
    if batches:
        category = torch.cat([rows["category"] for rows in batches])
        judged = torch.cat([rows[JUDGED] for rows in batches]) if JUDGED in batches[0] else None
        own = Moments(torch.cat([rows[name] for rows in batches]), category, categories, judged)
    shares = [share for share in of_all_processes(own) if share is not None]
    first, *others = shares
    for share in others:
        first = first.add(share)
    return first


def relative(part: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """ln(1 + exp((part - mean) / deviation)): what exceeds the mean, in deviations, above 0."""
    return F.softplus((part - mean) / deviation)


def relative_to_normals(
    calibration: Calibration, parts: dict[str, Tensor], category: Tensor
) -> dict[str, Tensor]:
    """Maps (B, 1, H, W) by name, each as `relative` to its statistics where they were learned."""
    return {
        name: relative(
            part,
            calibration.of(f"{name}_mean", category),
            calibration.of(f"{name}_deviation", category),
        )
        if f"{name}_deviation" in calibration
        else part
        for name, part in parts.items()
    }
