"""A second file, by which photographs of any size become what the model takes: `resize.onnx`.

OpenCV resizes separably, so a graph can do it by two matrix products, whose weights follow from the
photograph's shape. Sums are rounded in another order than OpenCV's: at a few pixels in a million
the result is one grey level off, where photographs shrink. Where they are enlarged, OpenCV counts
in integers, and more pixels are one level off.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from data_modules.reading.framing import Framing
from data_modules.reading.images import Pixels, read_image
from lightning_ad.deployment.formats import translated
from lightning_ad.deployment.parity import ParityError

INPUT, OUTPUT = "photograph", "image"


def can_resize(framing: Framing) -> bool:
    """Whether a file can resize as a framing does: by OpenCV's filters, without padding."""
    return framing.interpolation == "area" and framing.fit in ("squash", "crop")


class Resize(nn.Module):
    """Shows photographs (H, W, 3) of uint8 to a model, as (1, h, w, 3)."""

    def __init__(self, framing: Framing) -> None:
        super().__init__()
        self.frame, self.seen, self.cut = framing.frame, framing.seen, framing.cut
        self.keeps_aspect = framing.fit == "crop"

    def forward(self, photograph: Tensor) -> Tensor:
        """The photograph resized, its middle cut out where it is cropped."""
        own = [torch.arange(side, dtype=torch.float64) for side in photograph.shape[:2]]
        sides = torch.stack([pixels.max() + 1 for pixels in own])
        frame = torch.tensor(self.frame, dtype=torch.float64)
        size = frame
        if self.keeps_aspect:
            size = (sides * (frame / sides).max()).round().clamp(min=1)
        scale = sides / size
        rows, columns = (
            weights(pixels, scale, axis, self._places(axis, size[axis]))
            for axis, pixels in enumerate(own)
        )
        exact = torch.einsum("ih,hwc,jw->ijc", rows, photograph.float(), columns)
        halves_up = (exact + 0.5).floor()  # OpenCV's own way where both sides are halved
        levels = torch.where((scale == 2).all(), halves_up, exact.round())
        return levels.clamp(0, 255).to(torch.uint8)[None]

    def _places(self, axis: int, size: Tensor) -> Tensor:
        """Where the pixels that are seen lie in the whole photograph, resized."""
        shown = torch.arange(self.seen[axis], dtype=torch.float64) + self.cut[axis]
        return shown - ((self.frame[axis] - size) / 2).floor()


def weights(pixels: Tensor, scales: Tensor, axis: int, places: Tensor) -> Tensor:
    """The share (P, N) that each of N pixels along an axis has in what is shown at P places.

    As OpenCV takes them: by area if no side is enlarged, else of the two pixels next to a point,
    which is another one if the other side shrinks.

    Args:
        pixels: 0 to N - 1.
        scales: (2,), the photograph's height and width over those it is resized to.
        axis: 0 for rows, 1 for columns.
        places: (P,), in pixels of the photograph once resized.
    """
    scale, place = scales[axis], places[:, None]
    start, end = place * scale, (place + 1) * scale
    overlap = torch.minimum(end, pixels + 1) - torch.maximum(start, pixels)
    by_area = torch.where(overlap > 1e-3, overlap, 0.0) / scale  # OpenCV leaves out less
    corner = start.floor()
    beyond = (place + 1 - (corner + 1) / scale).clamp(min=0)
    mixed = (scales > 1).any()
    point = torch.where(mixed, corner + beyond - beyond.floor(), (start + end - 1) / 2)
    distance = (point.clamp(0, pixels.shape[0] - 1) - pixels).abs()
    by_point = ((1 - distance).clamp(min=0) * 2048).round() / 2048  # OpenCV's integers
    return torch.where((scales >= 1).all(), by_area, by_point).float()


def write_resize(framing: Framing, file: Path, opset: int) -> None:
    """Write the file for ONNX Runtime."""
    any_size = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC},)
    program = torch.export.export(
        Resize(framing), (torch.zeros(50, 60, 3, dtype=torch.uint8),), dynamic_shapes=any_size
    )
    exported = translated(program, opset, [INPUT], [OUTPUT])
    exported.save(file)


@dataclass(frozen=True)
class Difference:
    """How resized photographs differ from those that a detector sees."""

    largest: int
    """In grey levels."""
    share: float
    """Of values that differ."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def difference_of(file: Path, framing: Framing, photographs: Sequence[Path]) -> Difference:
    """How the file resizes photographs, beside what the framing shows of them.

    Raises:
        ParityError: if a value differs by more than one level.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    off: list[Pixels] = []
    for photograph in photographs:
        pixels = read_image(photograph, framing.white_level)
        (image,) = session.run([OUTPUT], {INPUT: pixels})
        off.append(np.abs(image[0].astype(int) - framing.shown(pixels)))
    found = Difference(int(np.max(off)), float(np.mean([(each > 0).mean() for each in off])))
    if found.largest > 1:
        raise ParityError(f"{file.name} is not written, it resizes otherwise: {found}")
    return found
