"""What a file says about its image before it is decoded: format, size, orientation, completeness.

OpenCV hands back a half-grey picture for a truncated file without a word, so the end of each file
is looked at; what cannot be told from there is decoded by Pillow, which is strict. Pillow's limits
(of pixels, of the length of texts) hold for a whole process and refuse good files: its formats are
opened one by one, so that `MAX_PIXELS` is the only limit.
"""

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

MAX_PIXELS = 2**29
ORIENTATION, BITS = 274, 258  # numbers of the tags, in EXIF as in TIFF
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
BMP = b"BM"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two begin a BigTIFF
PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}  # by the kind of colour in its header
STRIPS, TILES = (273, 279), (324, 325)  # tags of where a TIFF's pixels are, and how many bytes


class Header(NamedTuple):
    """What is known of an image without decoding it."""

    height: int
    width: int
    mode: str
    """Pillow's name for the kind of pixels."""
    deep: bool
    """Whether values have 16 bits."""
    orientation: int
    """How a viewer turns the image, 1 to 8 as in EXIF; 1 is as stored."""
    complete: bool
    """Whether the file ends as its format says; False only means: look closer."""


def require_file(path: Path) -> None:
    """Raise a ValueError for a pipe or a device, which would be read for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is a pipe or a device, no file")


def header_of(file: BinaryIO) -> Header:
    """The header of an open file or of bytes.

    Raises a ValueError for too many pixels, and exceptions of many types for what is no image.
    """
    header = _header_of(file)
    if header.height * header.width > MAX_PIXELS:
        raise ValueError(
            f"it has {header.width}x{header.height} pixels, more than the {MAX_PIXELS:,} that are "
            "read: cut it into tiles"
        )
    return header


def _header_of(file: BinaryIO) -> Header:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(32)
    if head.startswith(PNG):
        return _png_header(file)
    file.seek(max(0, size - 2))
    end = file.read()
    with opened(file) as image:
        deep = False
        if isinstance(image, TiffImageFile):
            # Pillow is stricter, but may refuse to decode that many pixels.
            complete = _too_many_for_pillow(image) and _end_of_pixels(image) <= size
            deep = 16 in image.tag_v2.get(BITS, ())
        elif head.startswith(BMP):
            complete = int.from_bytes(head[2:6], "little") == size
        else:
            complete = head.startswith(JPEG) and end == b"\xff\xd9"
        return Header(image.height, image.width, image.mode, deep, _orientation(image), complete)


def opened(file: BinaryIO) -> Image.Image:
    """Pillow's image of a file, without the limits that hold for a whole process."""
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if head.startswith(JPEG):
        return JpegImageFile(file)
    if head.startswith(TIFF):
        return TiffImageFile(file)
    if head.startswith(BMP):
        return BmpImageFile(file)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return WebPImageFile(file)
    try:
        return Image.open(file)
    except UnidentifiedImageError as error:  # which would name the object that was opened
        raise ValueError("its content is no known image's") from error


def decodes(data: bytes) -> None:
    """Decode strictly, for the exception that it raises where something is missing."""
    with opened(io.BytesIO(data)) as image:
        image.load()


def _png_header(file: BinaryIO) -> Header:
    file.seek(16)
    width, height = (int.from_bytes(file.read(4)) for _ in range(2))
    depth, colour = file.read(2)
    orientation, complete = 1, False
    for name, start, length in _png_chunks(file):
        if name == b"eXIf":
            file.seek(start)
            orientation = _orientation_in(file.read(length))
        complete = name == b"IEND"
    return Header(height, width, PNG_MODES[colour], depth == 16, orientation, complete)


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and length of each chunk up to the end of the image or of the file."""
    size = file.seek(0, os.SEEK_END)
    place, name = len(PNG), b""
    while name != b"IEND" and place + 12 <= size:
        file.seek(place)
        length = int.from_bytes(file.read(4))
        name = file.read(4)
        yield name, place + 8, length
        place += length + 12


def _too_many_for_pillow(image: Image.Image) -> bool:
    """Whether Pillow's limit, which holds for the process, may keep it from decoding an image."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and image.width * image.height > limit


def _end_of_pixels(image: TiffImageFile) -> int:
    """The largest end of a TIFF's strips or tiles, in bytes from the start of the file."""
    starts, lengths = TILES if TILES[0] in image.tag_v2 else STRIPS
    pieces = zip(image.tag_v2[starts], image.tag_v2[lengths], strict=True)
    return max(start + length for start, length in pieces)


def _orientation(image: Image.Image) -> int:
    if isinstance(image, TiffImageFile):
        return _known(image.tag_v2.get(ORIENTATION, 1))
    exif = image.info.get("exif")
    return _orientation_in(exif) if exif else 1


def _orientation_in(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
    except Exception:  # what programs write there is of many kinds, and no pixel depends on it
        return 1
    return _known(tags.get(ORIENTATION, 1))


def _known(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
