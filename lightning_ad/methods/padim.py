"""PaDiM: a Gaussian of pretrained features at every place of an image.

Defard, Setkov, Loesch, Audigier, "PaDiM: a Patch Distribution Modeling Framework for Anomaly
Detection and Localization", ICPR 2020, arXiv 2011.08785. Nothing trains: one look at the training
images gives the features' principal components, a second one mean and covariance at each place. A
patch's Mahalanobis distance to the Gaussian of its place is its anomaly.

What differs from the paper: principal components instead of a random choice of channels, features
averaged over 3x3 patches as in PatchCore, two layers, and a larger ridge on the covariance, which
whitened components bear. The covariance of the training images is too small for new ones; the
thresholds come from held-out images and are not affected.
"""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_ad.detector.detection import Phase
from lightning_ad.detector.feature_space import FeatureSpaceDetector
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.processes import add_up, of_all_processes
from lightning_ad.maths.gaussian import Moments, mahalanobis, no_moments, whitener
from lightning_ad.speed.allocation import require_memory


class PaDiM(FeatureSpaceDetector):
    """Mahalanobis distance at each place, in whitened principal components.

    Args:
        features: frozen pretrained pyramid, see `lightning_ad.networks.FeaturePyramid`.
        components: K, principal components kept. Memory and checkpoint hold K^2 numbers for each
            place and category: 67 MB for 32 x 32 places.
        ridge: added to the variance of every component, whose mean is 1.
        blur: sigma in pixels of the Gaussian that smooths the map.
        scoring: options of `AnomalyDetector`.
    """

    def __init__(
        self,
        features: nn.Module,
        components: int = 128,
        ridge: float = 0.05,
        blur: float = 4.0,
        **scoring: Any,
    ) -> None:
        super().__init__(features, components, 1.0, blur, **scoring)
        if ridge <= 0:
            raise ValueError(
                f"model.ridge must be above 0, not {ridge}: without it few images have no inverse "
                "covariance"
            )
        self.ridge = ridge

    def phases(self) -> list[Phase]:
        """None."""
        return []

    def check_grid(self, height: int, width: int) -> None:
        """Check that the covariances find room."""
        super().check_grid(height, width)
        require_memory(
            4 * len(self.categories) * height * width * self.components**2,
            f"PaDiM's covariances of {height} x {width} places",
            "lower model.components or data.image_size, or choose fewer categories",
        )

    def memory_passes(self, device: torch.device) -> Iterator[MemoryPass]:
        """Learn the space, then the Gaussians of each category."""
        yield from self.space_pass()
        look = PlaceMoments(self)
        yield look
        few = {n: i for n, i in self.training_images.items() if i <= self.components}
        if few:
            rank_zero_warn(
                f"fewer training images than model.components {self.components}, {few}: the "
                "covariances rest on model.ridge; more images, or fewer components, are better"
            )
        for number, moments in enumerate(look.moments):
            mean, whiten = whitener(moments, self.ridge)
            self.calibration[f"mean_{number}"] = mean
            self.calibration[f"whiten_{number}"] = whiten

    def deviation(self, points: Tensor, number: int) -> Tensor:
        """Mahalanobis distance of each patch to its place's Gaussian."""
        mean = self.calibration[f"mean_{number}"].to(points.device)
        whiten = self.calibration[f"whiten_{number}"].to(points.device)
        self.require_grid(points, len(mean))
        with torch.autocast(points.device.type, enabled=False):
            distance = mahalanobis(points.flatten(2).transpose(1, 2), mean, whiten)
        return distance.view(-1, *points.shape[2:])


class PlaceMoments(MemoryPass):
    """Adds up the moments of each place.

    Attributes:
        moments: of each category, over all processes after `finish`.
    """

    def __init__(self, detector: PaDiM) -> None:
        self._detector = detector
        self.moments: list[Moments] = []

    def observe(self, image: Tensor, category: Tensor, path: list[str]) -> None:
        """Count the images' patches."""
        points = self._detector.points(image).flatten(2).transpose(1, 2).cpu()
        self._start(points.shape[1])
        for number in category.unique().tolist():
            self.moments[number].add(points[category.cpu() == number])

    def _start(self, places: int) -> None:
        if not self.moments:
            count, components = len(self._detector.categories), self._detector.components
            with torch.inference_mode(False):  # they are added up after it, too
                self.moments = [no_moments(places, components) for _ in range(count)]

    def finish(self) -> None:
        """Add up the processes' sums, those without an image included."""
        self._start(max(of_all_processes(self.moments[0].total.shape[0] if self.moments else 0)))
        for moments in self.moments:
            for part in moments:
                add_up(part)
