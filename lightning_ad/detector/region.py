"""The region of interest that travels with a detector: it judges where it was calibrated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_modules.reading.images import Pixels
from data_modules.reading.interest import ALL, RegionOfInterest
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY

NAME = "region_of_interest_{}"
"""Of a category's mask, by its index; `UNKNOWN_CATEGORY` stands for all of them."""
BY_IMAGE = "region_of_interest_by_image"


def keep_region(
    calibration: Calibration, region: RegionOfInterest | None, categories: Sequence[str]
) -> None:
    """Keep the masks by category; of those by image, that there were some."""
    if region is None:
        return
    if region.folder is not None:
        calibration[BY_IMAGE] = torch.tensor(True)
    numbers = {ALL: UNKNOWN_CATEGORY, **{name: i for i, name in enumerate(categories)}}
    for category, mask in region.masks.items():
        calibration[NAME.format(numbers[category])] = torch.from_numpy(mask).bool()


def lend_region(calibration: Calibration, categories: Sequence[str], data: Any) -> None:
    """Let data without a region of interest have the kept one, if there is one."""
    region = kept_region(calibration, categories)
    if region is not None and data.region is None:
        data.region = region


def masks_of_batch(data: Any, batch: Any) -> list[Pixels | None]:
    """What counts of each photograph of a `DescribedBatch`, at its own size; None if all does."""
    if data.region is None:
        return [None] * len(batch["path"])
    columns = zip(batch["path"], batch["category"].tolist(), batch["size"].tolist(), strict=True)
    return [
        data.region.mask(Path(path), data.categories[category], (height, width))
        for path, category, (height, width) in columns
    ]


def interest_of(
    calibration: Calibration,
    categories: Sequence[str],
    category: str | None,
    size: tuple[int, int],
    given: NDArray[Any] | None,
) -> Pixels | None:
    """What counts (H, W) of a photograph of this size: as ``given``, else as kept, else all.

    Raises:
        ValueError: for a mask of another size, or none where each image has its own.
    """
    if given is not None:
        if given.shape != size:
            raise ValueError(f"interest is {given.shape}, the photograph {size}")
        return (given != 0).astype(np.uint8)
    if BY_IMAGE in calibration:
        raise ValueError("each image has a region of interest of its own: give `interest`")
    region = kept_region(calibration, categories)
    if region is None:
        return None
    return region.mask(Path("the photograph"), category or ALL, size)


def kept_region(calibration: Calibration, categories: Sequence[str]) -> RegionOfInterest | None:
    """The masks by category that were kept; None if there are none."""
    numbers = {ALL: UNKNOWN_CATEGORY, **{name: i for i, name in enumerate(categories)}}
    masks = {
        category: calibration[NAME.format(number)].cpu().byte().numpy()
        for category, number in numbers.items()
        if NAME.format(number) in calibration
    }
    return RegionOfInterest(masks) if masks else None
