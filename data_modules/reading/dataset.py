"""From a record's pixels to the item of a batch: crop, augmentation, scaling to [-1, 1]."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_modules.reading.images import FULL_16_BIT, Interpolation, Pixels, size_of
from data_modules.reading.samplers import Draw
from data_modules.records import Record

if TYPE_CHECKING:
    import albumentations as A

Augmentation = Literal[
    "horizontal_flip", "vertical_flip", "half_turns", "quarter_turns", "translation"
]
Load = Callable[[Record], tuple[Pixels, Pixels]]


class Item(TypedDict):
    """One image of a `Batch`, which has the same keys."""

    image: Tensor
    mask: Tensor
    label: int
    category: int
    path: str


@dataclass(frozen=True)
class Framing:
    """Square of `resize` pixels, of which a crop of `image_size` is seen, and its augmentations.

    `interpolation` and `white_level` say how files become pixels, see `images.Decoding`.
    """

    image_size: int
    resize: int
    augment: tuple[Augmentation, ...]
    interpolation: Interpolation = "area"
    white_level: int = FULL_16_BIT

    def __post_init__(self) -> None:
        if self.resize < self.image_size:
            raise ValueError(
                f"data.resize ({self.resize}) must be at least data.image_size ({self.image_size})"
            )
        if self.interpolation not in get_args(Interpolation):
            raise ValueError(
                f"data.interpolation must be one of {', '.join(get_args(Interpolation))}, not "
                f"{self.interpolation}"
            )
        if not 1 <= self.white_level <= FULL_16_BIT:
            raise ValueError(
                f"data.white_level must lie between 1 and {FULL_16_BIT}, not {self.white_level}"
            )
        for name in self.augment:
            if name not in get_args(Augmentation):
                raise ValueError(
                    f"data.augment: unknown {name!r}; known are {', '.join(get_args(Augmentation))}"
                )

    @property
    def translation(self) -> int:
        """How far training images move at most, in pixels: a sixteenth of the side, or 0."""
        return self.image_size // 16 if "translation" in self.augment else 0

    @property
    def varies(self) -> bool:
        """Whether a training image is not the same at each draw."""
        return self.resize > self.image_size or bool(self.augment)

    def transform(self, training: bool) -> "A.Compose | None":
        """Albumentations that lead from `resize` to `image_size`; None where nothing is done."""
        cropped = self.resize > self.image_size
        if not cropped and not (training and self.augment):
            return None
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # its import would ask the network
        import albumentations as A  # slow, and needed here only

        side = self.image_size
        if not training:
            return A.Compose([A.CenterCrop(side, side)])
        steps = {
            "horizontal_flip": A.HorizontalFlip(p=0.5),
            "vertical_flip": A.VerticalFlip(p=0.5),
            "half_turns": A.Sequential([A.HorizontalFlip(p=1.0), A.VerticalFlip(p=1.0)], p=0.5),
            "quarter_turns": A.RandomRotate90(p=1.0),
            "translation": A.Affine(
                translate_px=(-self.translation, self.translation),
                interpolation=cv2.INTER_NEAREST,  # by whole pixels, which stay as they are
                border_mode=cv2.BORDER_REFLECT_101,
                p=1.0,
            ),
        }
        chosen = [steps[name] for name in self.augment]
        if cropped:
            chosen.insert(0, A.RandomCrop(side, side))
        return A.Compose(chosen)


class AnomalyDataset(Dataset[Item]):
    """Records as tensors; `load` gives a record's pixels, from files or from the cache."""

    def __init__(
        self,
        records: Sequence[Record],
        categories: Sequence[str],
        load: Load,
        transform: "A.Compose | None",
        seed: int,
    ) -> None:
        self.records = records
        self.numbers = {category: number for number, category in enumerate(categories)}
        self.load = load
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: int | Draw) -> Item:
        item, epoch = draw if isinstance(draw, Draw) else (draw, 0)
        record = self.records[item]
        image, mask = self.load(record)
        if self.transform is not None:
            state = np.random.SeedSequence([self.seed, epoch, item]).generate_state(1)
            self.transform.set_random_seed(int(state[0]))
            seen = self.transform(image=image, mask=mask)
            image, mask = seen["image"], seen["mask"]
        return {
            "image": as_tensor(image),
            "mask": torch.from_numpy(np.array(mask[None])),
            "label": record.label,
            "category": self.numbers[record.category],
            "path": str(record.image),
        }


class DescribedItem(Item):
    """One image of a `DescribedBatch`, which has the same keys."""

    size: Tensor
    kind: str


class Described(Dataset[DescribedItem]):
    """A dataset's images with what a test or a prediction says about the files they come from."""

    def __init__(self, dataset: AnomalyDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> DescribedItem:
        record = self.dataset.records[index]
        size = torch.tensor(size_of(record.image))
        return {**self.dataset[index], "size": size, "kind": record.defect}


def as_tensor(pixels: Pixels) -> Tensor:
    """Pixels (H, W, 3) as an image (3, H, W) in [-1, 1]."""
    scaled = pixels.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    return torch.from_numpy(np.ascontiguousarray(scaled))


def as_pixels(image: Tensor) -> Pixels:
    """An image (3, H, W) in [-1, 1], on the CPU, as 8-bit pixels (H, W, 3): undoes `as_tensor`."""
    return ((image.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
