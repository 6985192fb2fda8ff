"""How much of what a photograph shows is left at the size in which a network sees it.

Features and latents have cells of 8 pixels: what is smaller than a cell is averaged with what
surrounds it, and mostly missed.
"""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from data_modules.problems import ImageError, Problem
from data_modules.reading.framing import Framing
from data_modules.reading.geometry import written
from data_modules.reading.images import MaskRule, Pixels, size_of, true_mask
from data_modules.reading.interest import RegionOfInterest
from data_modules.reading.samplers import few_of
from data_modules.records import Record

CELL = 8
"""Pixels along the side of a cell."""
TOLERATED = 1.25
"""Change of an aspect ratio of which nothing is said."""
SAMPLE = 32
"""Masks that are looked at before a run."""


def scale_of(framing: Framing, photograph: tuple[int, int]) -> float:
    """Side of what a network sees over the photograph's (H, W); of both sides the mean."""
    place = framing.place(photograph)
    return math.sqrt(place.height * place.width / (photograph[0] * photograph[1]))


def areas_seen(mask: Pixels, framing: Framing) -> list[float]:
    """Area of each 8-connected region of a mask (H, W), in pixels as a network sees them.

    What a crop leaves out is not seen.
    """
    size = (mask.shape[0], mask.shape[1])
    count, region, _, _ = cv2.connectedComponentsWithStats(mask)
    rows, columns = (
        _shown(*sides)
        for sides in zip(
            framing.window(size), framing.cut, framing.place(size)[2:],
            framing.place(size)[:2], size, strict=True,
        )
    )  # fmt: skip
    seen = np.bincount(region[rows, columns].ravel(), minlength=count)
    return [float(area) * scale_of(framing, size) ** 2 for area in seen[1:]]


def _shown(seen: slice, cut: int, start: int, length: int, side: int) -> slice:
    """The part of a photograph's side that is shown by the pixels `seen` of what a network sees."""
    first, last = ((edge + cut - start) * side / length for edge in (seen.start, seen.stop))
    return slice(math.floor(first), math.ceil(last))


def vanishing(records: Sequence[Record], framing: Framing, rule: MaskRule) -> Iterator[Problem]:
    """A remark if half of the defects, in some of the test images, are smaller than a cell."""
    masked = [record for record in records if record.label and record.masks]
    areas: list[float] = []
    for record in few_of(masked, SAMPLE):
        try:
            areas += areas_seen(true_mask(record, rule, size_of(record.image)), framing)
        except ImageError:
            continue  # the check of all files says so
    small = sum(area < CELL**2 for area in areas)
    if areas and 2 * small >= len(areas):
        detail = too_small(small, areas, framing)
        yield Problem("defects too small to be seen", masked[0].image, detail)


def unseen_region(
    records: Sequence[Record], framing: Framing, region: RegionOfInterest | None
) -> Iterator[Problem]:
    """A remark if half of a region of interest lies where no network sees it."""
    if region is None:
        return
    for record in records[:SAMPLE]:
        try:
            mask = region.mask(record.image, record.category, size_of(record.image))
        except ImageError:
            continue  # the check of all regions says so
        size = (mask.shape[0], mask.shape[1])
        seen = sum(areas_seen(mask, framing)) / scale_of(framing, size) ** 2
        if 2 * seen <= int(mask.sum()):
            share = f"{100 * seen / max(1, int(mask.sum())):.0f} % of it"
            detail = f"a network sees {share}, the rest is cropped: choose data.fit pad"
            yield Problem("region of interest cut off", record.image, detail)
            return


def too_small(small: int, areas: Sequence[float], framing: Framing) -> str:
    """What it means that so many of the defects are smaller than a cell."""
    cure = "" if framing.whole else "; see them larger, or photographs in tiles (--tiles 256)"
    return (
        f"{small} of {len(areas)} defects are smaller than one cell of the map ({CELL}x{CELL} "
        f"pixels) at data.image_size {written(framing.image_size)}{cure}"
    )


def advice(sizes: Sequence[tuple[int, int]], areas: Sequence[float], framing: Framing) -> list[str]:
    """How photographs of these sizes (H, W), with defects of these areas, are better seen."""
    if framing.whole or not sizes:
        return []
    scale = float(np.median([scale_of(framing, size) for size in sizes]))
    small = sum(area < CELL**2 for area in areas)
    lines = _of_shapes(sizes, framing)
    if areas and 4 * small >= len(areas) and scale < 0.75:
        left = sum(area < (CELL * scale) ** 2 for area in areas)
        lines.append(f"{too_small(small, areas, framing)}, where {left} would be")
    elif not areas and scale < 0.5:
        shown = f"{CELL / scale:.0f}x{CELL / scale:.0f}"
        lines.append(
            f"a cell of the map shows {shown} pixels of a photograph: if defects may be smaller, "
            "see photographs in tiles (--tiles 256)"
        )
    return lines


def _of_shapes(sizes: Sequence[tuple[int, int]], framing: Framing) -> list[str]:
    """Advice where a quarter of the photographs is squashed by a quarter or more."""
    ratios = np.array([width / height for height, width in sizes])
    change = ratios * framing.frame[0] / framing.frame[1]
    if framing.fit != "squash" or np.mean((change > 1 / TOLERATED) & (change < TOLERATED)) > 0.75:
        return []
    low, middle, high = np.quantile(ratios, (0.05, 0.5, 0.95)).tolist()
    if high / low < TOLERATED:
        size = written(_alike(middle, framing))
        return [
            f"photographs are {middle:.2f} times as wide as high: data.fit pad keeps their shape; "
            f"with data.image_size {size} they fill what is seen"
        ]
    return [
        f"photographs are {low:.2f} to {high:.2f} times as wide as high: data.fit pad keeps their "
        "shapes"
    ]


def _alike(ratio: float, framing: Framing) -> tuple[int, int]:
    """A size of about as many pixels as the frame, as wide as high times the ratio."""
    area = framing.frame[0] * framing.frame[1]
    height = max(1, round(math.sqrt(area / ratio) / 32)) * 32
    return height, max(1, round(height * ratio / 32)) * 32
