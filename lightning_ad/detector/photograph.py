"""From a photograph to what a detector sees of it, and from its map back to the photograph."""

import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_modules.reading.dataset import as_tensor
from data_modules.reading.framing import Framing
from data_modules.reading.geometry import plain, visible
from data_modules.reading.images import Pixels, as_rgb, read_image
from lightning_ad.maths.regions import Region, regions_above

Photograph: TypeAlias = str | PathLike[str] | NDArray[Any] | Image.Image
"""A file; an array (H, W, 3) in the order red, green, blue, or (H, W), of uint8; a PIL image."""

Verdict = Literal["normal", "anomalous", "not judged"]


@dataclass(frozen=True)
class Finding:
    """What a detector says about one photograph."""

    anomaly_map: NDArray[np.float32]
    """(H, W) as the photograph, larger is more anomalous; NaN where a crop left it unseen."""
    score: float
    """Larger is more anomalous."""
    threshold: float | None
    """Score above which the photograph counts as anomalous; None without calibration."""
    p_value: float | None = None
    """Conformal p-value: of new normal photographs, at most this share scores as high or higher.
    None where the checkpoint holds no normal scores."""
    verdict: Verdict | None = None
    """None without a threshold."""
    pixel_threshold: float | None = None
    """Map value above which a pixel of this photograph belongs to a region; None without
    calibration."""
    regions: list[Region] = field(default_factory=list)
    """Connected regions above the pixel threshold at the size of the photograph, the largest peak
    first."""

    @property
    def anomalous(self) -> bool | None:
        """Whether the verdict says so; None where there is none."""
        return None if self.verdict is None else self.verdict == "anomalous"

    def said(self) -> dict[str, Any]:
        """What predictions.json says of the photograph beside its regions."""
        names = ("score", "threshold", "p_value", "verdict", "pixel_threshold")
        return {name: getattr(self, name) for name in names}


class Numbers(NamedTuple):
    """What is known of one photograph; NaN stands for unknown."""

    score: float
    threshold: float
    p_value: float
    pixel_threshold: float
    faint_threshold: float


def finding_of(anomaly_map: NDArray[np.float32], numbers: Numbers, smallest_region: int) -> Finding:
    """The verdict and the regions of a map (H, W)."""
    score, threshold, p_value, level, faint = numbers
    verdict: Verdict = "anomalous" if score > threshold else "normal"
    regions = regions_above(anomaly_map, level, smallest_region)
    if verdict == "anomalous" and not regions and np.nanmax(anomaly_map) <= level > faint:
        level = faint  # its score tells more than its largest value: show what stands out most
        regions = regions_above(anomaly_map, level, smallest_region)
    return Finding(
        anomaly_map,
        score,
        _known(threshold),
        _known(p_value),
        None if math.isnan(threshold) else verdict,
        _known(level),
        regions,
    )


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def framing_of(config: dict[str, Any]) -> Framing:
    """How the data of a configuration is framed, outside of training."""
    options = config["data"]["init_args"]
    size = plain(options["image_size"])
    # Checkpoints of before lack some of these.
    names = ("interpolation", "white_level", "fit")
    decided = {name: options[name] for name in names if name in options}
    return Framing(size, plain(options.get("resize") or size), (), **decided)


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
    """What a detector sees (1, 3, H, W) of pixels (H, W, 3): brought to size, centre cropped."""
    return as_tensor(framing.shown(pixels))[None]


def map_of_photograph(
    anomaly_map: Tensor, framing: Framing, size: tuple[int, int], interest: Pixels | None = None
) -> NDArray[np.float32]:
    """A map (1, 1, h, w) at the size (H, W) of the photograph.

    NaN where a crop left it unseen, and outside of its region of interest, a mask (H, W).
    """
    if framing.whole:
        return _only(anomaly_map[0, 0].float().cpu().numpy(), interest)
    place, frame = framing.place(size), framing.frame
    unseen = [whole - own for whole, own in zip(frame, anomaly_map.shape[-2:], strict=True)]
    above, before = (side // 2 for side in unseen)
    around = (before, unseen[1] - before, above, unseen[0] - above)
    whole = F.pad(anomaly_map.float(), around, value=float("nan"))
    rows = visible(place.top, place.height, frame[0])
    columns = visible(place.left, place.width, frame[1])
    own = whole[..., rows, columns]
    # Where the frame shows the middle of the photograph, what is outside was not seen either.
    top, bottom = _share(rows, place.top, place.height, size[0])
    left, right = _share(columns, place.left, place.width, size[1])
    target = (bottom - top, right - left)
    shrinks = target[0] < own.shape[-2] or target[1] < own.shape[-1]
    large = F.interpolate(own, target, mode="bilinear", align_corners=False, antialias=shrinks)
    outside = (left, size[1] - right, top, size[0] - bottom)
    return _only(F.pad(large, outside, value=float("nan"))[0, 0].cpu().numpy(), interest)


def _only(anomaly_map: NDArray[np.float32], interest: Pixels | None) -> NDArray[np.float32]:
    """A map (H, W) that is NaN where a mask (H, W) is 0."""
    return anomaly_map if interest is None else np.where(interest == 0, np.nan, anomaly_map)


def _share(seen: slice, start: int, length: int, side: int) -> tuple[int, int]:
    """First pixel of a photograph's side that its frame shows, and the first one behind it."""
    first, last = (seen.start - start) / length, (seen.stop - start) / length
    return round(first * side), max(round(first * side) + 1, round(last * side))
