"""From a photograph to what a detector sees of it, and from its map back to the photograph."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_modules.reading.dataset import Framing, as_tensor
from data_modules.reading.images import Pixels, as_rgb, read_image, resize

Photograph: TypeAlias = str | PathLike[str] | NDArray[Any] | Image.Image
"""A file; an array (H, W, 3) in the order red, green, blue, or (H, W), of uint8; a PIL image."""


@dataclass(frozen=True)
class Finding:
    """What a detector says about one photograph."""

    anomaly_map: NDArray[np.float32]
    """(H, W) as the photograph, larger is more anomalous; NaN where a crop left it unseen."""
    score: float
    """Larger is more anomalous."""
    threshold: float | None
    """Score above which the photograph counts as anomalous; None without calibration."""

    @property
    def anomalous(self) -> bool | None:
        """The verdict; None without calibration."""
        return None if self.threshold is None else self.score > self.threshold


def framing_of(config: dict[str, Any]) -> Framing:
    """How the data of a configuration is framed, outside of training."""
    options = config["data"]["init_args"]
    side = options["image_size"]
    # Checkpoints of before have neither of the last two.
    decided = {name: options[name] for name in ("interpolation", "white_level") if name in options}
    return Framing(side, options.get("resize") or side, (), **decided)


def pixels_of(photograph: Photograph, white_level: int) -> Pixels:
    """A photograph as the data modules read it: RGB, uint8 (H, W, 3).

    Of 16-bit values, `white_level` becomes 255.

    Raises:
        ValueError: if it is no image, or of numbers other than 8- or 16-bit whole ones.
    """
    if isinstance(photograph, (str, PathLike)):
        return read_image(Path(photograph).expanduser(), white_level)
    if isinstance(photograph, Image.Image):
        deep = photograph.mode.startswith(("I", "F"))  # which conversion would clip
        values = np.asarray(photograph if deep else photograph.convert("RGB"))
    else:
        values = photograph
    shape = np.shape(values)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ValueError(
            "expected a path, a PIL image, or an array (H, W, 3) or (H, W) of uint8, not "
            f"{type(values).__name__} of shape {shape}"
        )
    return as_rgb(values, Path("the photograph"), white_level)


def seen(pixels: Pixels, framing: Framing) -> Tensor:
    """What a detector sees (1, 3, S, S) of pixels (H, W, 3): resized, cropped from the centre."""
    top, bottom = _crop(framing)
    square = resize(pixels, framing.resize, framing.interpolation)
    return as_tensor(square[top:bottom, top:bottom])[None]


def map_of_photograph(
    anomaly_map: Tensor, framing: Framing, size: tuple[int, int]
) -> NDArray[np.float32]:
    """A map (1, 1, S, S) at the size (H, W) of the photograph; NaN where a crop left it unseen."""
    top, bottom = _crop(framing)
    around = (top, framing.resize - bottom)
    whole = F.pad(anomaly_map.float(), (*around, *around), value=float("nan"))
    shrinks = min(size) < framing.resize
    large = F.interpolate(whole, size, mode="bilinear", align_corners=False, antialias=shrinks)
    return large[0, 0].cpu().numpy()


def _crop(framing: Framing) -> tuple[int, int]:
    """First row of the central crop, and the first one behind it; columns alike."""
    top = (framing.resize - framing.image_size) // 2
    return top, top + framing.image_size
