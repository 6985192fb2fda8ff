"""PatchCore: how far a patch is from the nearest of many normal patches.

Roth, Pemula, Zepeda, Scholkopf, Brox, Gehler, "Towards Total Recall in Industrial Anomaly
Detection", CVPR 2022, arXiv 2106.08265. Nothing trains: one look at the training images gives the
features' principal components, a second one collects all their patches, of which a greedy choice
(see `lightning_ad.maths.coreset`) stays as memory.

What differs from the paper: principal components, not whitened, instead of averaged channels; the
score's reweighting is an option and applies to every patch instead of the farthest one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_ad.detector.detection import Phase
from lightning_ad.detector.feature_space import DrawnPatches, FeatureSpaceDetector
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.maths.coreset import (
    around,
    farthest_points,
    nearest,
    random_projection,
    reweighted,
)
from lightning_ad.speed.allocation import require_memory

SELECTION_DIMENSIONS = 128
"""Dimensions in which patches are chosen; distances are measured in all of them."""


class PatchCore(FeatureSpaceDetector):
    """Distance to the nearest patch of a memory.

    Args:
        features: frozen pretrained pyramid, see `lightning_ad.networks.FeaturePyramid`.
        components: K, principal components kept.
        share: of the training patches, the memory's.
        most_patches: a category's patches to choose the memory from; of more, each image gives as
            many at random. Half a million take minutes.
        position: what a patch's place counts for: patches at opposite borders are that many times
            a patch's typical length apart, beside what they look like. For aligned parts.
        reweighting: b, members of the memory around the nearest one that tell whether it is
            unusual itself (eq. 7); 0 leaves distances as they are.
        blur: sigma in pixels of the Gaussian that smooths the map.
        scoring: options of `AnomalyDetector`.
    """

    def __init__(
        self,
        features: nn.Module,
        components: int = 256,
        share: float = 0.1,
        most_patches: int = 500_000,
        position: float = 0.0,
        reweighting: int = 0,
        blur: float = 4.0,
        **scoring: Any,
    ) -> None:
        super().__init__(features, components, 0.0, blur, **scoring)
        if not 0 < share <= 1:
            raise ValueError(f"model.share must lie between 0 and 1, not {share}")
        require_at_least(1, most_patches=most_patches)
        require_at_least(0, position=position)
        if reweighting < 0 or reweighting == 1:
            raise ValueError(f"model.reweighting must be 0 or at least 2, not {reweighting}")
        self.share, self.most_patches = share, most_patches
        self.position, self.reweighting = position, reweighting

    def phases(self) -> list[Phase]:
        """None."""
        return []

    def check_grid(self, height: int, width: int) -> None:
        """Check that the patches to choose from find room."""
        super().check_grid(height, width)
        per_image = min(height * width, self._per_image())
        held = sum(self.training_images.values()) * per_image
        most = max(self.training_images.values()) * per_image
        halves = 4 * held * self.components  # of all categories, and once more when gathered
        choice = 4 * most * (self.components + SELECTION_DIMENSIONS)
        require_memory(
            halves + choice,
            f"PatchCore's choice among {held} patches",
            "lower model.most_patches",
        )

    def _per_image(self) -> int:
        """Patches of an image that may be chosen."""
        return max(1, self.most_patches // max(self.training_images.values()))

    def memory_passes(self, device: torch.device) -> Iterator[MemoryPass]:
        """Learn the space, then choose each category's memory."""
        yield from self.space_pass()
        kept = DrawnPatches(lambda image: self.placed(self.points(image)), self._per_image())
        yield kept
        if kept.rows.shape[1] < kept.of:
            rank_zero_warn(
                f"the memory is chosen among {kept.rows.shape[1]} of each image's {kept.of} "
                f"patches, at random: model.most_patches is {self.most_patches}"
            )
        for number in range(len(self.categories)):
            patches = kept.rows[kept.category == number].flatten(0, 1)
            members = self.choose(patches.to(device).float())
            self.calibration[f"members_{number}"] = members
            if self.reweighting:
                self._require_around(members)
                self.calibration[f"around_{number}"] = around(members, self.reweighting)

    def _require_around(self, members: Tensor) -> None:
        if len(members) < self.reweighting:
            raise ValueError(
                f"the memory has {len(members)} patches, model.reweighting looks at "
                f"{self.reweighting}: raise model.share, or set model.reweighting to 0"
            )

    def choose(self, patches: Tensor) -> Tensor:
        """A greedy choice (M, D) of patches (N, D)."""
        projection = random_projection(patches.shape[1], SELECTION_DIMENSIONS, seed=0)
        count = max(1, round(self.share * len(patches)))
        return patches[farthest_points(patches @ projection.to(patches.device), count)]

    def placed(self, points: Tensor) -> Tensor:
        """Patches (B, D, P) of points (B, K, h, w): with their places, if these count."""
        if not self.position:
            return points.flatten(2)
        height, width = points.shape[-2:]
        length = self.position * self.components**0.5  # points have a mean variance of 1
        row, column = (
            length * torch.linspace(-0.5, 0.5, side, device=points.device)
            for side in (height, width)
        )
        place = torch.stack(torch.meshgrid(row, column, indexing="ij"))
        return torch.cat([points, place.expand(points.shape[0], -1, -1, -1)], 1).flatten(2)

    def deviation(self, points: Tensor, number: int) -> Tensor:
        """Distance of each patch to the nearest one of the category's memory."""
        patches = self.placed(points).transpose(1, 2)
        # One image at a time needs less memory; what is exported takes batches of any length.
        parts = [patches.flatten(0, 1)] if torch.compiler.is_exporting() else patches
        with torch.autocast(points.device.type, enabled=False):
            distance = [self._distance(part, number) for part in parts]
        return torch.cat(distance).view(-1, *points.shape[2:])

    def _distance(self, patches: Tensor, number: int) -> Tensor:
        members = self.calibration[f"members_{number}"].to(patches.device)
        distance, index = nearest(patches, members)
        if not self.reweighting:
            return distance
        close = self.calibration[f"around_{number}"].to(patches.device)[index]
        return reweighted(distance, patches, members[close])
