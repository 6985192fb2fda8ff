"""Connected regions of a map above a threshold: where a defect is, how large and how strong."""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Region:
    """One 8-connected region; places are pixels, x to the right and y down, from 0."""

    box: tuple[int, int, int, int]
    """x, y of the upper left pixel, width, height."""
    area: int
    """In pixels."""
    share: float
    """Area as a share of all pixels that were scored."""
    centroid: tuple[float, float]
    """Mean x and y of its pixels."""
    peak_at: tuple[int, int]
    """x, y of its largest value."""
    peak_value: float
    mask: NDArray[np.bool_] = field(repr=False, compare=False)
    """(height, width) of the box: which of its pixels belong to the region."""


def regions_above(
    anomaly_map: NDArray[np.float32], threshold: float, smallest: int = 1
) -> list[Region]:
    """The regions of a map (H, W) above a threshold with an area of `smallest` pixels or more.

    The largest peak comes first. NaN is above nothing, and counts in no share.
    """
    above = (anomaly_map > threshold).view(np.uint8)
    left, top, width, height = cv2.boundingRect(above)  # much faster than to label it all
    if not width:
        return []
    inner = anomaly_map[top : top + height, left : left + width]
    _, labels, statistics, centroids = cv2.connectedComponentsWithStats(
        above[top : top + height, left : left + width], connectivity=8
    )
    scored = anomaly_map.size - int(np.count_nonzero(np.isnan(anomaly_map)))
    found = []
    for number, (x, y, width, height, area) in enumerate(statistics[1:].tolist(), 1):
        if area >= smallest:
            box = (slice(y, y + height), slice(x, x + width))
            mask = labels[box] == number
            values = np.where(mask, inner[box], -np.inf)
            row, column = divmod(int(values.argmax()), width)
            middle = centroids[number].tolist()
            found.append(
                Region(
                    box=(left + x, top + y, width, height),
                    area=area,
                    share=area / scored,
                    centroid=(left + middle[0], top + middle[1]),
                    peak_at=(left + x + column, top + y + row),
                    peak_value=float(values[row, column]),
                    mask=mask,
                )
            )
    return sorted(found, key=lambda region: -region.peak_value)


def mask_of(regions: list[Region], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels (H, W) of all regions: 255 inside, 0 outside."""
    mask = np.zeros(size, np.uint8)
    for region in regions:
        x, y, width, height = region.box
        mask[y : y + height, x : x + width][region.mask] = 255
    return mask
