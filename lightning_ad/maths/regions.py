"""Connected regions of a map above a threshold: where a defect is, how large and how strong."""

from dataclasses import dataclass, field
from typing import Any

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
    above = anomaly_map > threshold
    if not above.any():
        return []
    _, labels, statistics, centroids = cv2.connectedComponentsWithStats(
        above.view(np.uint8), connectivity=8
    )
    scored = anomaly_map.size - int(np.count_nonzero(np.isnan(anomaly_map)))
    peaks = _peaks(anomaly_map, np.asarray(labels))
    found = []
    for number, (x, y, width, height, area) in enumerate(statistics[1:].tolist(), 1):
        if area >= smallest:
            row, column = divmod(int(peaks[number - 1]), anomaly_map.shape[1])
            found.append(
                Region(
                    box=(x, y, width, height),
                    area=area,
                    share=area / scored,
                    centroid=(float(centroids[number][0]), float(centroids[number][1])),
                    peak_at=(column, row),
                    peak_value=float(anomaly_map[row, column]),
                    mask=labels[y : y + height, x : x + width] == number,
                )
            )
    return sorted(found, key=lambda region: -region.peak_value)


def _peaks(anomaly_map: NDArray[np.float32], labels: NDArray[Any]) -> NDArray[np.int64]:
    """The flat index of the largest value of each region, the first in reading order if equal."""
    places = np.flatnonzero(labels)
    numbers = labels.ravel()[places]
    order = np.lexsort((-anomaly_map.ravel()[places], numbers))
    first = np.searchsorted(numbers[order], np.arange(1, numbers.max() + 1))
    return places[order[first]]


def mask_of(regions: list[Region], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The pixels (H, W) of all regions: 255 inside, 0 outside."""
    mask = np.zeros(size, np.uint8)
    for region in regions:
        x, y, width, height = region.box
        mask[y : y + height, x : x + width][region.mask] = 255
    return mask
