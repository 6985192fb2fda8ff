"""Tiles: overlapping parts of a photograph in its own size, as networks see it one by one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_modules.reading.images import Pixels
from data_modules.records import Record

Load: TypeAlias = Callable[[Record], tuple[Pixels, Pixels]]


@dataclass(frozen=True)
class Tiling:
    """How photographs are cut.

    Args:
        overlap: Least share of a tile's side that its neighbour has, too.
        scales: Of the photograph, 0.5 for half as large, at each of which it is cut.
    """

    overlap: float
    scales: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be from 0 to below 1, not {self.overlap:g}")
        if not self.scales or not all(0 < scale <= 4 for scale in self.scales):
            raise ValueError(f"scales must lie between 0 and 4, not {list(self.scales)}")
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales name one twice: {list(self.scales)}")


@dataclass(frozen=True)
class Tile(Record):
    """A part of an image, which is a record like an image's."""

    scale: float = 1.0
    scaled: tuple[int, int] = (0, 0)
    """Height and width of the photograph at that scale, in which the others are measured."""
    top: int = 0
    left: int = 0
    height: int = 0
    width: int = 0
    seen: tuple[int, int] = (0, 0)
    """Height and width of what a network sees; a smaller photograph is mirrored to it."""

    @property
    def name(self) -> str:
        """Unlike that of any other tile."""
        return f"{self.image}#{self.scale:g}@{self.top},{self.left}"

    def widened(self) -> "Tile":
        """With half a tile more on every side, as far as the photograph goes."""
        top, height = _wider(self.top, self.height, self.scaled[0])
        left, width = _wider(self.left, self.width, self.scaled[1])
        return replace(self, top=top, height=height, left=left, width=width)


def _wider(start: int, length: int, side: int) -> tuple[int, int]:
    first, behind = max(0, start - length // 2), min(side, start + length + length // 2)
    return first, behind - first


def starts(side: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: at even distances, from one end to the other."""
    if side <= tile:
        return [0]
    steps = math.ceil((side - tile) / max(1, math.floor(tile * (1 - overlap))))
    return [round(step * (side - tile) / steps) for step in range(steps + 1)]


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of a photograph (H, W) at a scale."""
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def tiles_of(
    record: Record, size: tuple[int, int], seen: tuple[int, int], tiling: Tiling
) -> list[Tile]:
    """All tiles (H, W) = ``seen`` of a record's image (H, W) = ``size``, at all scales."""
    of_image = {field.name: getattr(record, field.name) for field in fields(Record)}
    found = []
    for scale in tiling.scales:
        scaled = scaled_size(size, scale)
        height, width = min(seen[0], scaled[0]), min(seen[1], scaled[1])
        found += [
            Tile(
                **of_image,
                scale=scale,
                scaled=scaled,
                top=top,
                left=left,
                height=height,
                width=width,
                seen=seen,
            )
            for top in starts(scaled[0], seen[0], tiling.overlap)
            for left in starts(scaled[1], seen[1], tiling.overlap)
        ]
    return found


def part_shown(whole: Pixels, tile: Tile) -> Pixels:
    """What a tile shows of a photograph (H, W, 3), or of its mask (H, W), before it is scaled."""
    rows, columns = (
        slice(start * side // of, -(-(start + length) * side // of))
        for start, length, side, of in zip(
            (tile.top, tile.left),
            (tile.height, tile.width),
            whole.shape[:2],
            tile.scaled,
            strict=True,
        )
    )
    return whole[rows, columns]


def mask_in_tile(mask: Pixels, tile: Tile) -> Pixels:
    """A photograph's mask (H, W) as a tile has it, by the nearest pixel."""
    size, how = (tile.width, tile.height), cv2.INTER_NEAREST_EXACT
    part = np.asarray(cv2.resize(part_shown(mask, tile), size, interpolation=how), np.uint8)
    return _mirrored_to(part, tile.seen)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) at another size, smoothed where they shrink."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def mirrored(length: int, wanted: int) -> np.ndarray:
    """Positions (wanted,) that continue 0 ... length - 1 on both sides as in a mirror."""
    missing = max(0, wanted - length)
    return np.pad(np.arange(length), (missing // 2, missing - missing // 2), mode="reflect")


class Cut:
    """Gives the pixels of tiles; `load` gives those of whole photographs.

    Tiles that follow each other are of one photograph mostly, so that the last one is kept.
    """

    def __init__(self, load: Load) -> None:
        self.load = load
        self._last: tuple[str, Pixels] | None = None

    def __call__(self, tile: Record) -> tuple[Pixels, Pixels]:
        """Image (H, W, 3) and an empty mask (H, W): tiles are of normal photographs."""
        assert isinstance(tile, Tile)
        whole = self._whole(tile)
        part = _as_large(part_shown(whole, tile), (tile.height, tile.width))
        pixels = _mirrored_to(part, tile.seen)
        return pixels, np.zeros(pixels.shape[:2], np.uint8)

    def _whole(self, tile: Tile) -> Pixels:
        name = str(tile.image)
        if self._last is None or self._last[0] != name:
            self._last = name, self.load(tile)[0]
        return self._last[1]

    def __getstate__(self) -> dict[str, object]:
        """A worker reads for itself."""
        return {"load": self.load, "_last": None}


def _mirrored_to(part: Pixels, size: tuple[int, int]) -> Pixels:
    """Pixels (h, w) or (h, w, 3) that go on as in a mirror up to a size (H, W)."""
    down, across = map(mirrored, part.shape[:2], size)
    return np.ascontiguousarray(part[down[:, None], across])


def _as_large(part: Pixels, size: tuple[int, int]) -> Pixels:
    if part.shape[:2] == size:
        return part
    values = torch.from_numpy(np.array(part)).permute(2, 0, 1)[None].float()
    return resized(values, size)[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
