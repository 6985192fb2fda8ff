"""What methods share that compare patches in a space of pretrained features.

A frozen backbone describes every patch, principal components of the training images' patches make
the description short (see `lightning_ad.maths.patches`), and a method says how far each patch is
from normal ones. No image is reconstructed.
"""

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_modules.reading.geometry import height_and_width
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY, require_at_least
from lightning_ad.detector.processes import Rows, gather
from lightning_ad.maths import maps
from lightning_ad.maths.patches import PatchSpace, describe, fit_space, project

SAMPLE, SAMPLE_PER_IMAGE = 40_000, 32
"""Patches that the principal components are taken from, at most; but one of every image."""


class DrawnPatches(MemoryPass):
    """So many patches of every training image, at places that the image's name decides.

    Args:
        look: gives the patches (B, D, P) of images (B, 3, H, W).
        per_image: how many to draw; all, in order, if there are no more.

    Attributes:
        rows: (N, n, D) after `finish`, in the order of the images' paths; in half precision, as
            there are many.
        category: (N,) of each image.
        mean: (N, D) of all patches of each image.
        of: P.
    """

    def __init__(self, look: Callable[[Tensor], Tensor], per_image: int) -> None:
        self._look, self._per_image = look, per_image
        self._batches: list[Rows] = []
        self.of = 0

    def observe(self, image: Tensor, category: Tensor, path: list[str]) -> None:
        """Draw."""
        patches = self._look(image)
        self.of = patches.shape[2]
        drawn = [self._draw(own, one) for own, one in zip(patches, path, strict=True)]
        rows = {"category": category.cpu(), "rows": torch.stack(drawn).half().cpu()}
        rows["mean"] = patches.float().mean(2).cpu()
        self._batches.append({"path": path, **rows})

    def _draw(self, patches: Tensor, path: str) -> Tensor:
        """Patches (n, D) of one image's (D, P)."""
        if self.of > self._per_image:
            generator = torch.Generator().manual_seed(zlib.crc32(Path(path).name.encode()))
            places = torch.randperm(self.of, generator=generator)[: self._per_image]
            patches = patches[:, places.to(patches.device)]
        largest = torch.finfo(torch.float16).max  # beyond it lies infinity, and no variance
        return patches.T.clamp(-largest, largest)

    def finish(self) -> None:
        """Gather the patches."""
        columns = gather(self._batches)
        self.rows, self.category = columns["rows"], columns["category"]
        self.mean = columns["mean"]


class FeatureSpaceDetector(AnomalyDetector):
    """Base of the methods in feature space.

    Args:
        features: frozen pretrained pyramid; its shallowest layer sets the grid of patches.
        components: K, dimensions of the space; at most the layers' channels together.
        whitening: see `lightning_ad.maths.patches.fit_space`.
        blur: sigma in pixels of the Gaussian that smooths the map.
        scoring: options of `AnomalyDetector`.
    """

    kept_once = ("features",)

    def __init__(
        self,
        features: nn.Module,
        components: int,
        whitening: float,
        blur: float,
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        require_at_least(1, components=components)
        require_at_least(0, whitening=whitening, blur=blur)
        self.features = features.eval()
        self.components, self.whitening, self.blur = components, whitening, blur
        self.space = Calibration()
        self.training_images: dict[str, int] = {}
        """Number of training images of each category."""
        self.channels: list[int] = []
        """Of each layer."""

    @abstractmethod
    def deviation(self, points: Tensor, number: int) -> Tensor:
        """How far (B, h, w) patches (B, K, h, w) are from normal ones of a category."""

    # The space.

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check that features and images suit each other, and count the training images."""
        if stage != "fit":
            return
        if datamodule.framing.augment:
            raise ValueError(
                f"{type(self).__name__} looks at each training image once, as it is: remove "
                f"data.augment {list(datamodule.framing.augment)}"
            )
        names = [record.category for record in datamodule.training_records()]
        self.training_images = {name: names.count(name) for name in self.categories}
        size = height_and_width(datamodule.image_size)
        # Copies share the backbone, so it may lie on another device than the rest was on last.
        device = next(self.features.buffers(), torch.zeros(())).device
        with torch.inference_mode():
            layers = self.features(torch.zeros(1, 3, *size, device=device))
        self.channels = [layer.shape[1] for layer in layers]
        self.check_grid(layers[0].shape[2], layers[0].shape[3])

    def check_grid(self, height: int, width: int) -> None:
        """Raise an error if so many patches, of that many channels, don't suit the method."""
        channels = sum(self.channels)
        if self.components > channels:
            raise ValueError(
                f"model.components is {self.components}, but the layers of model.features have "
                f"{channels} channels together: set it to at most {channels}, or take more layers"
            )

    def layers(self, image: Tensor) -> list[Tensor]:
        """The backbone's layers (B, C_i, h_i, w_i) for images (B, 3, H, W).

        In float32 whatever the precision: whitening gives components that hardly vary nearly the
        weight of others, and in bfloat16 an eighth of them is rounding.
        """
        with torch.autocast(image.device.type, enabled=False):
            return self.features(image)

    def points(self, image: Tensor) -> Tensor:
        """Patches (B, K, h, w) of images (B, 3, H, W), as points of the space."""
        space = PatchSpace(self.space["mean"], self.space["projection"])
        layers = self.layers(image)
        with torch.autocast(image.device.type, enabled=False):
            return project(layers, PatchSpace(*(part.to(image.device) for part in space)))

    def sample(self) -> DrawnPatches:
        """A look at the training images for `fitted_space`."""
        per_image = max(1, min(SAMPLE_PER_IMAGE, SAMPLE // sum(self.training_images.values())))
        return DrawnPatches(lambda image: describe(self.layers(image)).flatten(2), per_image)

    def fitted_space(self, sample: DrawnPatches) -> PatchSpace:
        """The space of what was sampled."""
        _require_different(sample.mean)
        patches = sample.rows.flatten(0, 1).float()
        return fit_space(patches, self.channels, self.components, self.whitening)

    def take_space(self, space: PatchSpace) -> None:
        """Keep the space's axes."""
        self.space["mean"], self.space["projection"] = (part.to(self.device) for part in space)

    def space_pass(self) -> Iterator[MemoryPass]:
        """Learn the space: the first of a method's memory passes, if it trains nothing."""
        sample = self.sample()
        yield sample
        self.take_space(self.fitted_space(sample))

    # Detection.

    def compare(self, image: Tensor, category: Tensor) -> tuple[None, dict[str, Tensor]]:
        """Deviation of each patch, bilinear between the patches' middles.

        Images of no known category are taken for what they deviate from least.
        """
        points = self.points(image)
        deviation = points.new_empty(points.shape[0], *points.shape[2:])
        for number, own in self.groups_of(category):
            if number == UNKNOWN_CATEGORY:
                deviation[own] = self._least_deviation(points[own])
            else:
                deviation[own] = self.deviation(points[own], number)
        size = (image.shape[-2], image.shape[-1])
        return None, {"patch": maps.from_cells(deviation.unsqueeze(1), size)}

    def _least_deviation(self, points: Tensor) -> Tensor:
        each = [self.deviation(points, other) for other in range(len(self.categories))]
        deviations = torch.stack(each)
        nearest = deviations.mean((2, 3)).argmin(0)
        return deviations[nearest, torch.arange(nearest.shape[0], device=nearest.device)]

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """The map, blurred."""
        return maps.gaussian_blur(parts["patch"], self.blur)

    def require_grid(self, points: Tensor, places: int) -> None:
        """Raise a ValueError unless points (B, K, h, w) cover the places that were learned."""
        height, width = points.shape[-2:]
        if height * width != places:
            raise ValueError(
                f"{type(self).__name__} learned {places} places of an image, these images have "
                f"{height} x {width}: set data.image_size to that of the training"
            )


def _require_different(means: Tensor) -> None:
    """Raise a ValueError if several images have the same mean patch (N, D).

    Within one, patches differ even where it is constant, as they see its border.
    """
    spread = (means - means[0]).abs().max()
    if len(means) > 1 and spread <= 1e-5 * means.abs().max():
        raise ValueError(
            f"all {len(means)} training images look the same to model.features: look for "
            "images that are constant, or copies of one photograph"
        )
