"""What is left of photographs and their defects at the size that a network sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_modules.doctor.examine import Finding
from data_modules.reading.extent import CELL, advice, scale_of
from data_modules.reading.framing import Framing


@dataclass(frozen=True)
class Extent:
    """Of one category; medians where photographs differ."""

    category: str
    width_over_height: float
    """0 without a photograph that can be read; so is the scale."""
    scale: float
    """Side of what a network sees over the photograph's."""
    defects: int
    """Connected regions of masks."""
    small: int
    """Those of them that are smaller than a cell of the map."""
    advice: list[str]


def extent_of(category: str, findings: Sequence[Finding], framing: Framing) -> Extent:
    """Measure a category's photographs and defects."""
    own = [each for each in findings if each.record.category == category and all(each.size)]
    sizes = [(height, width) for width, height in (each.size for each in own)]
    areas = [area for each in own for area in each.areas]
    ratios = [width / height for height, width in sizes] or [0.0]
    scales = [scale_of(framing, size) for size in sizes] or [0.0]
    return Extent(
        category,
        float(np.median(ratios)),
        float(np.median(scales)),
        len(areas),
        sum(area < CELL**2 for area in areas),
        advice(sizes, areas, framing),
    )
