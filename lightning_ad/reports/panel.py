"""A panel: the pictures of one image side by side, under what was found and what is known."""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightning_ad.reports.drawing import (
    BLACK,
    BLUE,
    COLOURS,
    WHITE,
    Picture,
    Pixels,
    Scale,
    with_heat,
    with_truth,
)

SMALLEST, LARGEST = 256, 2048
"""Least and largest side of a photograph in a panel, in pixels; between them it is as it is."""
LONGEST = 2 * LARGEST
"""Up to which side a strip grows, so that it is wide enough to be seen."""
INK, FAINT = (34, 34, 34), (110, 110, 110)
BADGES = {
    "anomalous": ("ANOMALOUS", (166, 54, 3)),
    "normal": ("NORMAL", (8, 81, 156)),
    "not judged": ("NOT JUDGED", (90, 90, 90)),
    None: ("NO THRESHOLD", (90, 90, 90)),
}
"""A verdict in capitals, and the colour of its badge: dark red and blue differ in brightness."""


@dataclass(frozen=True)
class Heading:
    """What a panel says in words."""

    name: str
    score: float
    threshold: float | None
    verdict: str | None
    """`normal`, `anomalous` or `not judged`; None without a threshold."""
    label: int | None = None
    """1 is defective, 0 is normal, None is not known."""
    kind: str | None = None
    """The kind of defect."""

    def measured(self) -> str:
        """The score beside its threshold."""
        if self.threshold is None:
            return f"score {self.score:.4g}"
        return f"score {self.score:.4g}, threshold {self.threshold:.4g}"

    def known(self) -> str:
        """The label; nothing where there is none."""
        if self.label is None:
            return ""
        return f"labelled defective ({self.kind})" if self.label else "labelled good"

    def mistake(self) -> str:
        """What is wrong with the verdict, going by the label."""
        mistakes = {("anomalous", 0): "FALSE ALARM", ("normal", 1): "MISSED DEFECT"}
        return "" if self.label is None else mistakes.get((self.verdict or "", self.label), "")


def panel(picture: Picture, heading: Heading) -> Pixels:
    """Put the photograph, the reconstruction if there is one, and the heat side by side.

    The photograph keeps its resolution between sides of 256 and 2048 pixels.
    """
    picture = _readable(picture)
    height, width = picture.photograph.shape[:2]
    unit = max(14, round(min(height, 1.5 * width) / 26))  # of letters, in pixels
    tiles = {"photograph": with_truth(picture)}
    if picture.reconstruction is not None:
        tiles["reconstruction"] = picture.reconstruction
    shown = "above the threshold" if picture.scale.is_threshold else "over the map's own range"
    tiles[f"anomaly map, {shown}"] = with_heat(picture)
    tiles["map value"] = _colour_bar(picture.scale, height, unit)
    gap, above = unit // 2, 7 * unit
    total = gap + sum(tile.shape[1] + gap for tile in tiles.values())
    paper = np.full((above + height + 2 * unit, total, 3), 255, np.uint8)
    paper[: 5 * unit] = _words(heading, total, unit)
    left = gap
    for title, tile in tiles.items():
        columns = slice(left, left + tile.shape[1])
        paper[5 * unit : above, columns] = _caption(title, tile.shape[1], unit)
        paper[above : above + height, columns] = tile
        left = columns.stop + gap
    paper[above + height :] = _legend(total, unit, picture.truth is not None)
    return paper


def _readable(picture: Picture) -> Picture:
    """The picture in a size that panels have: small ones larger by a whole factor."""
    sides = picture.photograph.shape[:2]
    factor: float = min(-(-SMALLEST // min(sides)), LONGEST // max(sides))
    if factor <= 1:
        factor = min(1.0, LARGEST / max(sides))
    if factor == 1:
        return picture
    return picture.resized(*(max(1, round(factor * side)) for side in sides))


same_as_before = lru_cache(maxsize=32)
"""Keeps what panels of one run share: words take longer to draw than heat."""


@same_as_before
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _paper(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), WHITE)


@same_as_before
def _caption(title: str, width: int, unit: int) -> Pixels:
    paper = _paper(2 * unit, width)
    _write(paper, title, 0, unit, unit, FAINT, width)
    return np.asarray(paper)


def _write(
    paper: Image.Image,
    text: str,
    x: int,
    y: int,
    size: int,
    ink: tuple[int, int, int],
    room: int,
) -> int:
    """Write a line from x, centred at y, its end cut where it has no room; return where it ends."""
    text = text.encode(errors="replace").decode()  # fonts take no half of a character
    font = _font(size)
    while len(text) > 2 and font.getlength(text) > room:
        text = text[: max(1, int(len(text) * room / font.getlength(text)) - 2)] + "…"
    ImageDraw.Draw(paper).text((x, y), text, ink, font, anchor="lm")
    return x + round(font.getlength(text))


def _badge(
    paper: Image.Image,
    title: str,
    x: int,
    y: int,
    size: int,
    colour: tuple[int, int, int],
    filled: bool,
) -> int:
    """Write a title into a rounded box from x, centred at y; return where it ends."""
    end = x + size + round(_font(size).getlength(title))
    box = (x, y - round(0.85 * size), end, y + round(0.85 * size))
    fill, ink = (colour, WHITE) if filled else (WHITE, colour)
    line = max(2, size // 9)
    ImageDraw.Draw(paper).rounded_rectangle(box, size // 3, fill, colour, line)
    _write(paper, title, x + size // 2, y, size, ink, end)
    return end


def _words(heading: Heading, width: int, unit: int) -> Pixels:
    """The verdict in a badge and the score; below, the label and the name."""
    paper = _paper(5 * unit, width)
    title, colour = BADGES[heading.verdict]
    x, y, size = unit // 2, round(1.5 * unit), round(1.15 * unit)
    end = _badge(paper, title, x, y, size, colour, filled=True) + unit
    end = _write(paper, heading.measured(), end, y, size, INK, width - end) + unit
    if heading.mistake():
        _badge(paper, heading.mistake(), end, y, size, INK, filled=False)
    below = round(3.7 * unit)
    known = heading.known()
    if known:
        x = _write(paper, known, x, below, unit, INK, width - x) + 2 * unit
    _write(paper, heading.name, x, below, unit, FAINT, width - x)
    return np.asarray(paper)


@same_as_before
def _colour_bar(scale: Scale, height: int, unit: int) -> Pixels:
    """The scale, from a share below the threshold to its high end, with values beside it."""
    below = round(0.15 * height) if scale.is_threshold else 0
    bar = np.full((height, 9 * unit, 3), 255, np.uint8)
    ramp = COLOURS[np.rint(np.linspace(255, 1, height - below)).astype(np.uint8)]
    bar[: height - below, :unit] = ramp[:, None]
    bar[height - below :, :unit] = _checks(below, unit)
    paper = Image.fromarray(bar)
    room = 7 * unit
    x = round(1.4 * unit)
    _write(paper, f"{scale.high:.3g}+", x, unit // 2 + 1, unit, INK, room)
    middle = (height - below) // 2
    _write(paper, f"{(scale.low + scale.high) / 2:.3g}", x, middle, unit, INK, room)
    at = height - below
    if scale.is_threshold:
        ImageDraw.Draw(paper).line((0, at, 2 * unit, at), BLACK, max(2, unit // 7))
        _write(paper, f"{scale.low:.3g}", round(2.3 * unit), at - unit // 2, unit, INK, room)
        _write(paper, "threshold", round(2.3 * unit), at + round(0.7 * unit), unit, INK, room)
    else:
        _write(paper, f"{scale.low:.3g}", x, height - unit // 2 - 1, unit, INK, room)
    return np.asarray(paper)


def _checks(height: int, width: int) -> Pixels:
    """The pattern that stands for nothing drawn."""
    rows, columns = np.indices((height, width)) // max(3, width // 4)
    grey = np.where((rows + columns) % 2, 235, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@same_as_before
def _legend(width: int, unit: int, has_truth: bool) -> Pixels:
    paper = np.array(_paper(2 * unit, width))
    samples = [("region above the threshold", WHITE, 1)] + [("true defect", BLUE, 4)] * has_truth
    x, length, thickness = unit // 2, 3 * unit, max(2, unit // 6)
    for title, ink, dashes in samples:
        ends = np.rint(np.linspace(x, x + length, 2 * dashes)).astype(int).reshape(dashes, 2)
        for line, colour in ((thickness + 2, BLACK), (thickness, ink)):
            for start, end in ends.tolist():
                cv2.line(paper, (start, unit), (end, unit), colour, line)
        image = Image.fromarray(paper)
        x = _write(image, title, x + length + unit // 2, unit, unit, FAINT, width) + 2 * unit
        paper = np.array(image)
    return paper
