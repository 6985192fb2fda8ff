"""From a record's pixels to the item of a batch: augmentation, scaling to [-1, 1]."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_modules.problems import ImageError, Problem
from data_modules.reading.framing import Framing
from data_modules.reading.geometry import Window
from data_modules.reading.images import Pixels, fitted_mask, size_of
from data_modules.reading.interest import RegionOfInterest
from data_modules.reading.samplers import Draw
from data_modules.reading.tiles import Load, Tile, mask_in_tile
from data_modules.records import Record


class Judged(TypedDict, total=False):
    """The key of a `Batch` that only some have."""

    judged: Tensor


class Item(Judged):
    """One image of a `Batch`, which has the same keys."""

    image: Tensor
    mask: Tensor
    label: int
    category: int
    path: str


class AnomalyDataset(Dataset[Item]):
    """Records as tensors; `load` gives a record's pixels, from files or from the cache."""

    def __init__(
        self,
        records: Sequence[Record],
        categories: Sequence[str],
        load: Load,
        framing: Framing,
        seed: int,
        training: bool = False,
        region: RegionOfInterest | None = None,
    ) -> None:
        self.records, self.region = records, region
        self.numbers = {category: number for number, category in enumerate(categories)}
        self.load = load
        self.framing = framing
        self.transform = framing.transform(training)
        self.seed = seed
        self.training = training

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
            "path": record.name,
            **self._judged(record),
        }

    def _judged(self, record: Record) -> Judged:
        """What counts of an image, where that is not all of it."""
        if self.training or not (self.framing.padded or self.region):
            return {}
        size = size_of(record.image)
        if self.region is None:
            return {"judged": judged_in(self.framing, size)}
        mask = self.region.mask(record.image, record.category, size)
        if isinstance(record, Tile):
            return {"judged": torch.from_numpy(mask_in_tile(mask, record)[None])}
        judged = judged_in(self.framing, size, mask)
        if not judged.any():
            detail = "it has less than a pixel at data.image_size, or lies outside of the crop"
            raise ImageError(Problem("region of interest out of sight", record.image, detail))
        return {"judged": judged}


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


def judged_in(
    framing: Framing, photograph: tuple[int, int], interest: Pixels | None = None
) -> Tensor:
    """1 where a network sees a photograph (H, W), 0 where it sees padding, uint8 (1, h, w).

    Also 0 outside of its region of interest, a mask (H, W), if there is one.
    """
    if interest is not None and framing.whole:
        return torch.from_numpy(interest[None])
    if interest is not None:
        (top, left), (height, width) = framing.cut, framing.seen
        framed = fitted_mask(interest, framing.frame, framing.fit)
        return torch.from_numpy(framed[None, top : top + height, left : left + width].copy())
    return marked(framing.window(photograph), framing.seen)


def marked(window: Window, size: tuple[int, int]) -> Tensor:
    """1 in a window and 0 elsewhere, uint8 (1, *size)."""
    marks = torch.zeros(1, *size, dtype=torch.uint8)
    marks[:, *window] = 1
    return marks


def as_tensor(pixels: Pixels) -> Tensor:
    """Pixels (H, W, 3) as an image (3, H, W) in [-1, 1]."""
    scaled = pixels.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    return torch.from_numpy(np.ascontiguousarray(scaled))


def as_pixels(image: Tensor) -> Pixels:
    """An image (3, H, W) in [-1, 1], on the CPU, as 8-bit pixels (H, W, 3): undoes `as_tensor`."""
    return ((image.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
