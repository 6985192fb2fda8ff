"""From files to pixels: every image becomes 8-bit RGB, every mask 0/1, on purpose.

OpenCV decodes. Orientation tags are ignored, as masks are drawn on the pixels as stored.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_modules.problems import ImageError, Problem
from data_modules.reading.formats import TIFF, Header, decodes, header_of, opened, require_file
from data_modules.reading.geometry import Fit, Size, height_and_width, place_of, visible
from data_modules.records import Record

FULL_16_BIT = 65535
MAX_MEGAPIXELS = 100.0
MaskRule = Literal["half", "nonzero"]
Interpolation = Literal["area", "bilinear", "bicubic"]
Pixels = NDArray[np.uint8]
Values = NDArray[Any]


@dataclass(frozen=True)
class Decoding:
    """How files become the pixels of a data set.

    Args:
        size: What images and masks are brought to, in pixels.
        rule: What a mask marks, see `read_mask`.
        interpolation: How images are resized, see `resize`.
        white_level: The value of 16-bit images that becomes 255, see `read_image`.
        fit: How another shape is brought to that size, see `fitted`.
        max_megapixels: With the fit `tile`, the largest image that is read.
    """

    size: Size
    rule: MaskRule = "half"
    interpolation: Interpolation = "area"
    white_level: int = FULL_16_BIT
    fit: Fit = "squash"
    max_megapixels: float = MAX_MEGAPIXELS

    def __call__(self, record: Record) -> tuple[Pixels, Pixels]:
        """Image (H, W, 3) and mask (H, W) of a record, of this size; as they are with `tile`.

        Masks take the nearest pixel; a normal image has an all-zero one. Raises ImageError when a
        file is broken or sizes differ.
        """
        if self.fit == "tile":
            require_few_pixels(record.image, self.max_megapixels)
        image = read_image(record.image, self.white_level)
        mask = true_mask(record, self.rule, (image.shape[0], image.shape[1]))
        if self.fit == "tile":
            return image, mask
        size = height_and_width(self.size)
        return fitted(image, size, self.fit, self.interpolation), fitted_mask(mask, size, self.fit)

    def changed(self) -> dict[str, str | int]:
        """What decides pixels beside size and rule, where it is not the default."""
        usual = Decoding(self.size)
        names = ("interpolation", "white_level", "fit")
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(usual, n)}


def read_image(path: Path, white_level: int = FULL_16_BIT) -> Pixels:
    """RGB image, uint8 (H, W, 3).

    Grayscale is repeated, alpha is dropped. Of 16-bit images, `white_level` becomes 255, and what
    is brighter as well: unless a camera used fewer bits, values are divided by 257 (the full range
    maps to the full range, nothing is stretched).
    """
    return as_rgb(in_rgb_order(decode(path)), path, white_level)


def in_rgb_order(values: Values) -> Values:
    """Decoded values (H, W), or (H, W, 3) in the order red, green, blue without alpha."""
    if values.ndim == 2:
        return values
    if values.dtype in (np.uint8, np.uint16) and values.shape[2] in (3, 4):  # far faster
        how = cv2.COLOR_BGR2RGB if values.shape[2] == 3 else cv2.COLOR_BGRA2RGB
        return cv2.cvtColor(values, how)
    return values[..., 2::-1]


def as_rgb(values: Values, path: Path, white_level: int = FULL_16_BIT) -> Pixels:
    """Values (H, W), or (H, W, 3 or 4) in the order red, green, blue, alpha, as RGB of 8 bits."""
    pixels = _to_8_bit(values, path, white_level)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def read_mask(path: Path, rule: MaskRule = "half") -> Pixels:
    """Mask, uint8 0/1 (H, W), binarised at its own resolution.

    "half": above half of the largest value the file's type can hold; "nonzero": any value but 0,
    for masks of class ids. Of a colour mask the largest channel counts, alpha does not.
    """
    return binarise(decode(path), rule, path)


def true_mask(record: Record, rule: MaskRule, size: tuple[int, int]) -> Pixels:
    """What is marked in a record's image of that size: the union of its masks (H, W), 0/1.

    Nothing in a normal image. Raises ImageError when a mask is broken or of another size.
    """
    mask = np.zeros(size, np.uint8)
    for path in record.masks if record.label else ():
        part = read_mask(path, rule)
        require_same_size(path, part.shape, mask.shape)
        mask |= part
    return mask


def binarise(values: Values, rule: MaskRule, path: Path) -> Pixels:
    """Decoded values to 0/1 (H, W); an ImageError naming `path` if they are no whole numbers."""
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    if rule == "nonzero":
        return (values != 0).astype(np.uint8)
    if values.dtype not in (np.uint8, np.uint16):
        raise _unsupported(path, values)
    largest, limit = int(values.max()), np.iinfo(values.dtype).max
    if 0 < largest <= limit // 2:
        detail = (
            f"its largest value is {largest} and would count as black: a defect is marked above "
            f"half of {limit}. Save masks with 0 and {limit}; Folder reads masks of class numbers "
            "with data.mask_rule nonzero"
        )
        raise ImageError(Problem("mask that marks nothing", path, detail))
    return (values > limit // 2).astype(np.uint8)


def fitted(
    image: Pixels, frame: tuple[int, int], fit: Fit, interpolation: Interpolation = "area"
) -> Pixels:
    """An image (H, W, 3) in a frame (H, W), see `geometry.place_of`; mirrored beyond its edges."""
    place = place_of((image.shape[0], image.shape[1]), frame, fit)
    scaled = resize(image, (place.height, place.width), interpolation)
    return _in_frame(scaled, place.top, place.left, frame, cv2.BORDER_REFLECT_101)


def fitted_mask(mask: Pixels, frame: tuple[int, int], fit: Fit) -> Pixels:
    """A mask (H, W) in a frame (H, W), by the nearest pixel; zero beyond its edges."""
    place = place_of((mask.shape[0], mask.shape[1]), frame, fit)
    how = cv2.INTER_NEAREST_EXACT
    scaled = np.asarray(cv2.resize(mask, (place.width, place.height), interpolation=how), np.uint8)
    return _in_frame(scaled, place.top, place.left, frame, cv2.BORDER_CONSTANT)


def _in_frame(pixels: Pixels, top: int, left: int, frame: tuple[int, int], border: int) -> Pixels:
    """Pixels that begin at `top` and `left` of a frame: what is outside is cut, gaps are filled."""
    rows, columns = visible(-top, frame[0], len(pixels)), visible(-left, frame[1], len(pixels[0]))
    cut = pixels[rows, columns]
    above, before = max(0, top), max(0, left)
    below, behind = frame[0] - above - cut.shape[0], frame[1] - before - cut.shape[1]
    if not (above or before or below or behind):
        return np.ascontiguousarray(cut)
    return np.asarray(cv2.copyMakeBorder(cut, above, below, before, behind, border), np.uint8)


def resize(image: Pixels, size: Size, interpolation: Interpolation = "area") -> Pixels:
    """An image at another size, the aspect ratio not kept.

    `area` averages where an image shrinks in a direction, else it is bilinear. `bilinear` and
    `bicubic` are Pillow's, which widens its filters where an image shrinks: what torchvision does
    to the images of authors who use it.
    """
    height, width = height_and_width(size)
    if interpolation == "area":
        shrinks = height < image.shape[0] or width < image.shape[1]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    return np.array(Image.fromarray(image).resize((width, height), filters[interpolation]))


def require_few_pixels(path: Path, most: float) -> None:
    """Raise ImageError for an image of more than ``most`` millions of pixels."""
    height, width = size_of(path)
    if height * width > 1e6 * most:
        detail = (
            f"{width}x{height} pixels are {height * width / 1e6:.1f} million, and up to {most:g} "
            "are cut into tiles in memory: raise data.max_megapixels (40 MB of memory each), or "
            "cut the file itself"
        )
        raise ImageError(Problem("too large", path, detail))


def require_same_size(path: Path, mask: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Raise ImageError when a mask's (height, width) is not its image's."""
    if mask != image:
        detail = (
            f"{mask[1]}x{mask[0]} pixels, its image has {image[1]}x{image[0]}: export both alike"
        )
        raise ImageError(Problem("mask of another size", path, detail))


def require_complete(path: Path) -> Header:
    """The header of an image; raises ImageError if the file is cut short."""
    header = _header(path)
    if not header.complete:
        decode(path)
    return header


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of an image as it is stored; only its header is read."""
    return _header(path)[:2]


def _header(path: Path) -> Header:
    try:
        require_file(path)
        with path.open("rb") as file:
            return header_of(file)
    except Exception as error:  # Pillow's plugins raise many types for broken files
        raise _unreadable(path, error) from error


def decode(path: Path) -> Values:
    """Values as stored, (H, W) or (H, W, channels in OpenCV's order)."""
    try:
        require_file(path)
        return decoded(path.read_bytes())
    except Exception as error:
        raise _unreadable(path, error) from error


def decoded(data: bytes) -> Values:
    """The values of a file's content, as `decode`; exceptions of many types if it is no image."""
    header = header_of(io.BytesIO(data))
    if not header.complete:
        decodes(data)
    return _decode_tiff(data, header) if data.startswith(TIFF) else _decode_by_opencv(data)


def _decode_tiff(data: bytes, header: Header) -> Values:
    """Decode a TIFF, whose pixels OpenCV would turn by a tag and multiply by their alpha."""
    if header.orientation != 1:
        raise ValueError("its orientation tag turns the pixels away from their mask's")
    if header.mode not in ("LA", "RGBA"):
        return _decode_by_opencv(data)
    with opened(io.BytesIO(data)) as image:
        values = np.asarray(image)
    return values[..., 0] if header.mode == "LA" else values[..., [2, 1, 0, 3]]


def _decode_by_opencv(data: bytes) -> Values:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("its content cannot be decoded")
    return values


def _to_8_bit(values: Values, path: Path, white_level: int) -> Pixels:
    if values.dtype == np.uint16:
        bounded = np.minimum(values, white_level).astype(np.uint32)
        return ((bounded * 255 + white_level // 2) // white_level).astype(np.uint8)
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
