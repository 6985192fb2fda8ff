"""What is drawn on a photograph: heat where the map is above its threshold, and outlines.

Heat is transparent at the threshold and gets stronger up to three times of it, on one scale for all
images of a category, in test and predict alike. Regions of flagged images have a solid white
outline, true defects a dashed blue one, both on black, so that neither depends on telling colours
apart; regions of images that pass have a thin grey one.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""(H, W, 3) in the order red, green, blue."""
Mask: TypeAlias = NDArray[np.uint8]
"""(H, W) of 0 and 1."""
Map: TypeAlias = NDArray[np.float32]
"""(H, W), larger is more anomalous; NaN where nothing was judged."""

STOPS = ((255, 224, 102), (245, 133, 41), (211, 56, 61), (122, 4, 83))
"""Colours of heat, from the threshold up: lighter to darker for every kind of sight."""
FAINTEST, STRONGEST = 0.25, 0.85
"""Opacity of heat just above the threshold and at the scale's high end."""
UNJUDGED = 0.35
"""What is left of the brightness where nothing was judged."""
THUMBNAIL = 240
"""Longer side of a photograph in a thumbnail, in pixels."""
BLACK, GREY, WHITE, BLUE = (0, 0, 0), (170, 170, 170), (255, 255, 255), (86, 180, 233)


class Scale(NamedTuple):
    """The map values between which heat is drawn: none up to `low`, the strongest from `high`."""

    low: float
    high: float
    is_threshold: bool
    """Whether `low` is a threshold; else the scale is a map's own range."""


def scale_of(threshold: float | None, anomaly_map: Map) -> Scale:
    """The scale that is anchored at a pixel threshold; without one, the range of the map."""
    if threshold is None:
        known = anomaly_map[np.isfinite(anomaly_map)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
        return Scale(low, max(high, low + 1e-12), is_threshold=False)
    return Scale(threshold, threshold + 2 * (abs(threshold) or 1.0), is_threshold=True)


@dataclass(frozen=True)
class Picture:
    """One image and what was found in it, all of the photograph's height and width."""

    photograph: Pixels
    anomaly_map: Map
    scale: Scale
    regions: Mask
    """What was found: the pixels above the threshold."""
    truth: Mask | None = None
    """The true defects, where they are known."""
    reconstruction: Pixels | None = None
    is_flagged: bool = True
    """Whether regions are outlined boldly; in images that pass, they are not what counts."""

    def resized(self, height: int, width: int) -> "Picture":
        """The same in another size."""
        size = (width, height)
        smaller = width < self.photograph.shape[1]
        smooth = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST
        redrawn = self.reconstruction
        return Picture(
            np.asarray(cv2.resize(self.photograph, size, interpolation=smooth), np.uint8),
            np.asarray(cv2.resize(self.anomaly_map, size), np.float32),
            self.scale,
            _mask_resized(self.regions, size),
            None if self.truth is None else _mask_resized(self.truth, size),
            None
            if redrawn is None
            else np.asarray(cv2.resize(redrawn, size, interpolation=smooth), np.uint8),
            self.is_flagged,
        )


def _mask_resized(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask in which what is a pixel or less stays a pixel."""
    if size[0] < mask.shape[1]:
        share = cv2.resize(mask * np.uint8(255), size, interpolation=cv2.INTER_AREA)
        return (share > 0).astype(np.uint8)
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def thumbnail(picture: Picture) -> Pixels:
    """The photograph and, to its right, its heat, each with a longer side of 240 pixels."""
    height, width = picture.photograph.shape[:2]
    factor = THUMBNAIL / max(height, width)
    small = picture.resized(*(max(1, round(factor * side)) for side in (height, width)))
    return np.hstack([small.photograph, with_heat(small)])


def with_truth(picture: Picture) -> Pixels:
    """The photograph, with the true defects outlined."""
    pixels = picture.photograph.copy()
    if picture.truth is not None:
        outline(pixels, picture.truth, BLUE, dashed=True)
    return pixels


def with_heat(picture: Picture) -> Pixels:
    """The photograph in grey under its heat, with found regions and true defects outlined."""
    pixels = _heated(picture)
    unjudged = np.isnan(picture.anomaly_map)
    if unjudged.any():
        pixels[unjudged] = (pixels[unjudged] * UNJUDGED).astype(np.uint8)
    if picture.is_flagged:
        outline(pixels, picture.regions, WHITE)
    else:
        lines = _lines_around(picture.regions, cv2.CHAIN_APPROX_SIMPLE)
        cv2.polylines(pixels, lines, True, GREY, 1, cv2.LINE_AA)
    if picture.truth is not None:
        outline(pixels, picture.truth, BLUE, dashed=True)
    return pixels


def levels(anomaly_map: Map, scale: Scale) -> NDArray[np.uint8]:
    """Strength of heat (H, W): 0 for none, else 1 (just above the threshold) to 255."""
    factor = 254 / (scale.high - scale.low)
    strength = cv2.addWeighted(  # of all ways by far the fastest
        anomaly_map, factor, anomaly_map, 0, 1 - factor * scale.low, dtype=cv2.CV_8U
    )
    return np.where(anomaly_map > scale.low, strength, 0).astype(np.uint8)  # which NaN is not


def _heated(picture: Picture) -> Pixels:
    """The photograph in grey, its colours where there is heat: a channel at a time is faster."""
    grey = cv2.cvtColor(picture.photograph, cv2.COLOR_RGB2GRAY)
    pixels = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    hot = np.greater(picture.anomaly_map, picture.scale.low).view(np.uint8)
    x, y, width, height = cv2.boundingRect(hot)
    if width:
        box = np.s_[y : y + height, x : x + width]
        strength = levels(picture.anomaly_map[box], picture.scale)
        kept = cv2.multiply(grey[box], cv2.LUT(strength, KEPT), scale=1 / 255)
        pixels[box] = cv2.merge([cv2.add(kept, cv2.LUT(strength, laid)) for laid in LAID])
    return pixels


def _colours() -> Pixels:
    """The colour of each level (256, 3)."""
    places = np.linspace(1, 255, len(STOPS))
    columns = [np.interp(np.arange(256), places, channel) for channel in zip(*STOPS, strict=True)]
    return np.rint(np.stack(columns, axis=1)).astype(np.uint8)


def _opacity() -> NDArray[np.float64]:
    """The opacity of each level (256,)."""
    opacity = np.linspace(FAINTEST, STRONGEST, 256)
    opacity[0] = 0
    return opacity


COLOURS, OPACITY = _colours(), _opacity()
KEPT = np.rint(255 * (1 - OPACITY)).astype(np.uint8)
"""What is left of a photograph under each level, of 255."""
LAID = np.rint(COLOURS.T * OPACITY).astype(np.uint8)
"""What each level adds to each of its channels (3, 256)."""


def outline(pixels: Pixels, mask: Mask, colour: tuple[int, int, int], dashed: bool = False) -> None:
    """Draw lines around a mask's areas and in their holes, in place, on a black casing."""
    lines = _lines_around(mask, cv2.CHAIN_APPROX_NONE if dashed else cv2.CHAIN_APPROX_SIMPLE)
    thickness = max(1, round(min(mask.shape) / 220))
    length = 5 * thickness
    pieces = [dash for line in lines for dash in _dashes(line, length)] if dashed else lines
    for width, ink in ((thickness + 2, BLACK), (thickness, colour)):
        cv2.polylines(pixels, pieces, not dashed, ink, width, cv2.LINE_AA)


def _lines_around(mask: Mask, points: int) -> list[NDArray[np.int32]]:
    """Closed lines (N, 1, 2) through the pixels next to a mask's areas, with all or few points."""
    x, y, width, height = cv2.boundingRect(mask)
    if not width:
        return []
    part = cv2.copyMakeBorder(mask[y : y + height, x : x + width], 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    larger = cv2.dilate(part, np.ones((3, 3), np.uint8))
    lines, _ = cv2.findContours(larger, cv2.RETR_CCOMP, points, offset=(x - 1, y - 1))
    corner = (mask.shape[1] - 1, mask.shape[0] - 1)
    return [np.clip(np.asarray(line, np.int32), 0, corner) for line in lines]


def _dashes(line: NDArray[np.int32], length: int) -> list[NDArray[np.int32]]:
    """Every second stretch of a closed line (N, 1, 2) of neighbouring pixels."""
    return [line[start : start + length] for start in range(0, len(line), 2 * length)]
