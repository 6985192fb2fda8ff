"""Pictures of a detection: tiles in a row under a title, made to be read when opened."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Pixels: TypeAlias = np.ndarray
"""uint8 (H, W, 3) in OpenCV's channel order, blue first."""

TILE = 256  # least side of a tile in pixels
GAP = 8
STRIP = 26  # height of a line of text
INK, PAPER = (40, 40, 40), (255, 255, 255)


class Scale(NamedTuple):
    """The map values at the ends of the colour scale."""

    low: float
    high: float


def photograph(image: Tensor) -> Pixels:
    """Turn an image (3, H, W) in [-1, 1] into pixels."""
    rgb = ((image.float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return np.ascontiguousarray(rgb[:, :, ::-1])


def reconstructed(reconstruction: Tensor | None, index: int) -> Pixels | None:
    """Pixels of one of the reconstructions (B, 3, H, W) in [-1, 1], where there are any."""
    return None if reconstruction is None else photograph(reconstruction[index])


def heat(anomaly_map: NDArray[np.float32], scale: Scale) -> Pixels:
    """Colour a map (H, W) from dark blue at the scale's low end to dark red at its high end."""
    span = max(scale.high - scale.low, 1e-12)
    level = np.clip((anomaly_map - scale.low) / span, 0, 1)
    return cv2.applyColorMap(np.rint(255 * level).astype(np.uint8), cv2.COLORMAP_TURBO)


def overlay(image: Pixels, colours: Pixels) -> Pixels:
    """Lay colours over a grey version of the image, both (H, W, 3)."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(grey, 0.45, colours, 0.55, 0)


def marked(mask: NDArray[np.uint8]) -> Pixels:
    """Turn a mask (H, W) of 0 and 1 into white on black."""
    return cv2.cvtColor(mask * np.uint8(255), cv2.COLOR_GRAY2BGR)


def tiles_of(image: Pixels, reconstruction: Pixels | None, colours: Pixels) -> dict[str, Pixels]:
    """Name the tiles of a detection: image, reconstruction if there is one, coloured map."""
    middle = {} if reconstruction is None else {"reconstruction": reconstruction}
    return {"image": image, **middle, "anomaly map": overlay(image, colours)}


def row_of(tiles: Mapping[str, Pixels], title: str, scale: Scale) -> Pixels:
    """Put named tiles of equal size side by side, with the title above and the scale at the right.

    Small images are enlarged to at least 256 pixels by a whole factor, without smoothing.
    """
    height, width = next(iter(tiles.values())).shape[:2]
    factor = max(1, -(-TILE // min(height, width)))
    size = (factor * width, factor * height)
    columns = []
    for name, tile in tiles.items():
        large = cv2.resize(tile, size, interpolation=cv2.INTER_NEAREST)
        columns += [np.vstack([_text(name, size[0]), large]), _paper(STRIP + size[1], GAP)]
    columns.append(np.vstack([_paper(STRIP, 64), _colour_bar(size[1], scale)]))
    row = np.hstack(columns)
    panel = np.vstack([_text(title, row.shape[1], bold=True), row])
    return cv2.copyMakeBorder(panel, GAP, GAP, GAP, GAP, cv2.BORDER_CONSTANT, value=PAPER)


def _paper(height: int, width: int) -> Pixels:
    return np.full((height, width, 3), 255, np.uint8)


def _text(line: str, width: int, bold: bool = False) -> Pixels:
    """Write a line into a strip, in smaller letters where it is too long."""
    strip = _paper(STRIP, width)
    line = line.encode(errors="replace").decode()  # OpenCV crashes on what is not UTF-8
    thickness = 2 if bold else 1
    (length, _), _ = cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, 0.55, thickness)
    size = 0.55 * min(1.0, (width - 4) / max(length, 1))
    place = (2, STRIP - 9)
    cv2.putText(strip, line, place, cv2.FONT_HERSHEY_SIMPLEX, size, INK, thickness, cv2.LINE_AA)
    return strip


def _colour_bar(height: int, scale: Scale) -> Pixels:
    bar = _paper(height, 64)
    levels = np.linspace(scale.high, scale.low, height, dtype=np.float32)
    bar[:, :14] = heat(levels[:, None].repeat(14, 1), scale)
    for value, y in ((scale.high, 12), (scale.low, height - 4)):
        place = (17, y)
        cv2.putText(bar, f"{value:.2g}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
    return bar
