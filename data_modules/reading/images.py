"""From files to pixels: every image becomes 8-bit RGB, every mask 0/1, on purpose.

OpenCV decodes. It hands back a half-grey picture for a truncated file without a word, so the end of
each file is looked at first, and where it is not the expected one Pillow, which is strict, decides.
Orientation tags are ignored, as masks are drawn on the pixels as stored.
"""

import io
import os
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_modules.problems import ImageError, Problem
from data_modules.records import Record

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
TIFF = (b"II*\0", b"MM\0*")
ORIENTATION = 274  # number of the tag
MaskRule = Literal["half", "nonzero"]
Pixels = NDArray[np.uint8]
Values = NDArray[Any]


def read_image(path: Path) -> Pixels:
    """RGB image, uint8 (H, W, 3).

    Grayscale is repeated, alpha is dropped, 16-bit values are divided by 257 (the full range maps
    onto the full range, nothing is stretched). Raises ImageError naming the file.
    """
    values = decode(path)
    return as_rgb(values if values.ndim == 2 else values[..., 2::-1], path)  # from BGR or BGRA


def as_rgb(values: Values, path: Path) -> Pixels:
    """Values (H, W), or (H, W, 3 or 4) in the order red, green, blue, alpha, as RGB of 8 bits."""
    pixels = _to_8_bit(values, path)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def read_mask(path: Path, rule: MaskRule = "half") -> Pixels:
    """Mask, uint8 0/1 (H, W), binarised at its own resolution.

    "half": above half of the largest value the file's type can hold; "nonzero": any value but 0,
    for masks of class ids. Of a colour mask the largest channel counts, alpha does not.
    """
    return binarise(decode(path), rule, path)


def binarise(values: Values, rule: MaskRule, path: Path) -> Pixels:
    """Decoded values to 0/1 (H, W); an ImageError naming `path` if they are no whole numbers."""
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    if rule == "nonzero":
        return (values != 0).astype(np.uint8)
    if values.dtype not in (np.uint8, np.uint16):
        raise _unsupported(path, values)
    if values.max() == 1:
        detail = (
            "would count as black: a defect is marked above half of the largest possible value, "
            "so save masks with 0 and 255"
        )
        raise ImageError(Problem("mask of zeros and ones", path, detail))
    return (values > np.iinfo(values.dtype).max // 2).astype(np.uint8)


def load(record: Record, size: int, rule: MaskRule) -> tuple[Pixels, Pixels]:
    """Image (size, size, 3) and mask (size, size) of a record, resized without keeping the ratio.

    Images are averaged over areas when they shrink, masks take the nearest pixel. A normal image
    has an all-zero mask. Raises ImageError when a file is broken or sizes differ.
    """
    image = read_image(record.image)
    mask = np.zeros(image.shape[:2], np.uint8)
    for path in record.masks if record.label else ():
        part = read_mask(path, rule)
        require_same_size(path, part.shape, mask.shape)
        mask |= part
    nearest = cv2.resize(mask, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    return resize(image, size), np.asarray(nearest, np.uint8)


def resize(image: Pixels, size: int) -> Pixels:
    """An image as a square, averaged over areas if it shrinks in a direction, else bilinear."""
    shrinks = size < max(image.shape[:2])
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=how), np.uint8)


def require_same_size(path: Path, mask: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Raise ImageError when a mask's (height, width) is not its image's."""
    if mask != image:
        detail = (
            f"{mask[1]}x{mask[0]} pixels, its image has {image[1]}x{image[0]}: export both alike"
        )
        raise ImageError(Problem("mask of another size", path, detail))


def looks_complete(head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file of `size` bytes ends as its format says; False only means: look closer."""
    if head.startswith(b"\x89PNG"):
        return tail[-8:-4] == b"IEND"
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") == size
    return False


def require_complete(path: Path) -> tuple[int, int]:
    """(height, width) from the header; raises ImageError if the file is cut short."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 32))
            tail = file.read()
        with Image.open(path) as image:
            shape = image.height, image.width
    except Exception as error:  # Pillow's plugins raise many types for broken files
        raise _unreadable(path, error) from error
    if not looks_complete(head, tail, size):
        decode(path)
    return shape


def decode(path: Path) -> Values:
    """Values as stored, (H, W) or (H, W, channels in OpenCV's order)."""
    try:
        data = path.read_bytes()
        if not looks_complete(data[:32], data[-32:], len(data)):
            with Image.open(path) as image:
                image.load()
        return _decode_tiff(data) if data.startswith(TIFF) else _decode_by_opencv(data)
    except Exception as error:
        raise _unreadable(path, error) from error


def _decode_tiff(data: bytes) -> Values:
    """Decode a TIFF, whose pixels OpenCV would turn by a tag and multiply by their alpha."""
    with Image.open(io.BytesIO(data)) as image:
        if image.getexif().get(ORIENTATION, 1) != 1:
            raise ValueError("its orientation tag turns the pixels away from their mask's")
        if image.mode == "RGBA":
            return np.asarray(image)[..., [2, 1, 0, 3]]
    return _decode_by_opencv(data)


def _decode_by_opencv(data: bytes) -> Values:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its content cannot be decoded")
    return values


def _to_8_bit(values: Values, path: Path) -> Pixels:
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if values.dtype != np.uint8:
        raise _unsupported(path, values)
    return values


def _unsupported(path: Path, values: Values) -> ImageError:
    detail = f"its pixels are {values.dtype}; expected 8- or 16-bit whole numbers"
    return ImageError(Problem("unsupported", path, detail))


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(Problem("missing", path, "no such file"))
    detail = f"not a complete and plain image: {error}"
    return ImageError(Problem("unreadable", path, detail))
