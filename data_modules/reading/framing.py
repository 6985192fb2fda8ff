"""What a network sees of a photograph: how it is brought to size, cropped and augmented."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import cv2

from data_modules.reading.geometry import (
    Fit,
    Place,
    Size,
    Window,
    height_and_width,
    place_of,
    visible,
    written,
)
from data_modules.reading.images import FULL_16_BIT, Interpolation, Pixels, fitted
from data_modules.reading.tiles import Tiling

if TYPE_CHECKING:
    import albumentations as A

Augmentation = Literal[
    "horizontal_flip", "vertical_flip", "half_turns", "quarter_turns", "translation"
]


@dataclass(frozen=True)
class Framing:
    """Frame of `resize` pixels, of which a crop of `image_size` is seen, and its augmentations.

    `fit` says how a photograph of another shape comes into the frame, see `geometry.place_of`;
    `interpolation` and `white_level` how files become pixels, see `images.Decoding`. With the fit
    `tile` photographs stay as they are, for a detector that cuts them itself; `tiling` says how
    what trains it is cut.
    """

    image_size: Size
    resize: Size
    augment: tuple[Augmentation, ...]
    interpolation: Interpolation = "area"
    white_level: int = FULL_16_BIT
    fit: Fit = field(default="squash", repr=False)  # names of caches hold what is printed
    tiling: Tiling | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.frame[0] < self.seen[0] or self.frame[1] < self.seen[1]:
            raise ValueError(
                f"data.resize ({written(self.resize)}) must be at least data.image_size "
                f"({written(self.image_size)})"
            )
        for name, value, known in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("fit", self.fit, get_args(Fit)),
        ):
            if value not in known:
                raise ValueError(f"data.{name} must be one of {', '.join(known)}, not {value}")
        if not 1 <= self.white_level <= FULL_16_BIT:
            raise ValueError(
                f"data.white_level must lie between 1 and {FULL_16_BIT}, not {self.white_level}"
            )
        self._check_augmentations()
        self._check_tiles()

    def _check_augmentations(self) -> None:
        for name in self.augment:
            if name not in get_args(Augmentation):
                raise ValueError(
                    f"data.augment: unknown {name!r}; known are {', '.join(get_args(Augmentation))}"
                )
        if "quarter_turns" in self.augment and self.seen[0] != self.seen[1]:
            raise ValueError(
                "data.augment: quarter_turns need squares, data.image_size is "
                f"{written(self.image_size)}: take half_turns"
            )

    def _check_tiles(self) -> None:
        if not self.whole:
            return
        if self.frame != self.seen:
            raise ValueError("data.resize has no place with data.fit tile: see model.scales")
        if self.interpolation != "area":
            raise ValueError(
                "data.interpolation has no place with data.fit tile: photographs keep their size"
            )

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of what a network sees."""
        return height_and_width(self.image_size)

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of the frame."""
        return height_and_width(self.resize)

    @property
    def cut(self) -> tuple[int, int]:
        """Rows and columns of the frame before the central crop."""
        return (self.frame[0] - self.seen[0]) // 2, (self.frame[1] - self.seen[1]) // 2

    @property
    def layout(self) -> tuple[str, ...]:
        """What decides all pixels though the first image may not show it: for names of caches."""
        fitted = () if self.fit == "squash" else (self.fit,)
        return fitted if self.tiling is None else (*fitted, str(self.tiling))

    @property
    def padded(self) -> bool:
        """Whether a network may see more than the photograph."""
        return self.fit == "pad"

    @property
    def whole(self) -> bool:
        """Whether a detector gets photographs as they are, of any size."""
        return self.fit == "tile"

    @property
    def varies(self) -> bool:
        """Whether a training image is not the same at each draw."""
        return self.whole or self.frame != self.seen or bool(self.augment)

    def place(self, photograph: tuple[int, int]) -> Place:
        """Where a photograph (H, W) lies in the frame."""
        return place_of(photograph, self.frame, self.fit)

    def window(self, photograph: tuple[int, int]) -> Window:
        """Rows and columns of what a network sees that show the photograph (H, W), not padding."""
        if self.whole:
            return slice(0, photograph[0]), slice(0, photograph[1])
        place, cut = self.place(photograph), self.cut
        rows = visible(place.top - cut[0], place.height, self.seen[0])
        return rows, visible(place.left - cut[1], place.width, self.seen[1])

    def shown(self, pixels: Pixels) -> Pixels:
        """What a detector sees of a photograph (H, W, 3) outside of training."""
        if self.whole:
            return pixels
        frame = fitted(pixels, self.frame, self.fit, self.interpolation)
        (top, left), (height, width) = self.cut, self.seen
        return frame[top : top + height, left : left + width]

    def transform(self, training: bool) -> "A.Compose | None":
        """Albumentations that lead from `resize` to `image_size`; None where nothing is done."""
        cropped = self.frame != self.seen or (self.whole and training)
        if not cropped and not (training and self.augment):
            return None
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network
        import albumentations as A  # slow, and needed here only

        if not training:
            return A.Compose([A.CenterCrop(*self.seen)])
        down, right = (side // 16 for side in self.seen)
        steps = {
            "horizontal_flip": A.HorizontalFlip(p=0.5),
            "vertical_flip": A.VerticalFlip(p=0.5),
            "half_turns": A.Sequential([A.HorizontalFlip(p=1.0), A.VerticalFlip(p=1.0)], p=0.5),
            "quarter_turns": A.RandomRotate90(p=1.0),
            "translation": A.Affine(
                translate_px={"x": (-right, right), "y": (-down, down)},
                interpolation=cv2.INTER_NEAREST,  # by whole pixels, which stay as they are
                border_mode=cv2.BORDER_REFLECT_101,
                p=1.0,
            ),
        }
        chosen = [steps[name] for name in self.augment]
        if cropped:
            chosen.insert(0, A.RandomCrop(*self.seen))
        return A.Compose(chosen)
