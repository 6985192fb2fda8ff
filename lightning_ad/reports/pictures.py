"""Pictures of images: one file for each, whatever its name; one that is not written is an error."""

import hashlib
import os
from pathlib import Path, PurePath

import cv2
import numpy as np
from numpy.typing import NDArray

from data_modules.reading.store import make_folder
from data_modules.reading.walk import is_image

OPTIONS = {
    ".jpg": (cv2.IMWRITE_JPEG_QUALITY, 88),
    ".png": (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
}
"""How each kind of file is encoded: fast, and to the eye without loss; PNG files are masks, which
take five times as long when filtered."""
LONGEST = 240  # bytes of a file's name; file systems take 255


def picture_name(name: PurePath, suffix: str = ".png") -> PurePath:
    """Return the name of what is written of an image; two images of one folder never share it."""
    own = name.suffix == suffix and not is_image(name.stem)
    return PurePath(*name.parts[:-1], _shortened(name.name if own else name.name + suffix, suffix))


def flat_name(name: PurePath, suffix: str = ".png") -> PurePath:
    """Return the name of a picture in a folder for all, of an image somewhere below another."""
    joined = "_".join(name.parts)
    if any("_" in part for part in name.parts) and len(name.parts) > 1:  # else a/b_c is a_b/c
        joined = f"{_lot(name.as_posix())}_{joined}"
    return picture_name(PurePath(joined), suffix)


def write_picture(file: Path, picture: NDArray[np.uint8]) -> None:
    """Write a PNG or, by its name, a JPEG of pixels (H, W), or (H, W, 3) in RGB order.

    Whoever reads finds the whole of it. An OSError names the file if that fails, and no part of it
    remains.
    """
    in_order = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(file.suffix, in_order, OPTIONS.get(file.suffix, ()))[1].tobytes()
    partial = file.with_name(f"{file.stem}.partial{file.suffix}")
    try:
        make_folder(file.parent)
        partial.write_bytes(data)
        file.unlink(missing_ok=True)  # some file systems wait for the disk where one is replaced
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OSError(f"the picture {file} cannot be written: {error.strerror}") from error


def _shortened(name: str, suffix: str) -> str:
    data = os.fsencode(name)
    if len(data) <= LONGEST:
        return name
    kept = data[: LONGEST - 20].decode(errors="ignore")
    return f"{kept}_{_lot(name)}{suffix}"


def _lot(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]
