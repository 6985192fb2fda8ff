"""Files that are whole or not there at all, and large arrays kept in them.

Whatever this project writes, a killed process leaves either what was there before or the new file,
never a part. Arrays of a row per image (decoded pixels, latents, features) are computed once, by
whichever process comes first, and then mapped into memory, so that all processes share them. A .npy
file of ours ends with checksums, which NumPy does not look at: what a disk has changed since is
noticed when the file is opened, and written again.
"""

import hashlib
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike, NDArray

from data_modules.problems import DataError

log = logging.getLogger(__name__)

MARK = b"lightning_ad crc32 "  # begins the checksums
BLOCK = 2**22  # bytes that one of them is of


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file or a folder that takes the place of `path` when all went well.

    It is on the disk before it is renamed, so that a power failure leaves no part of it either.
    Of one `path`, only one process may write at a time. Links stay; pipes and devices are written
    to as they are.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
    path = path.resolve()
    partial = path.with_name(f"{path.name}.partial")
    make_folder(path.parent)
    _remove(partial)  # what a killed process left
    try:
        yield partial
        for file in partial.rglob("*") if partial.is_dir() else [partial]:
            if file.is_file():
                _flush(file)
        if partial.is_dir():
            _remove(path)  # a folder is only renamed to a free name
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, however many, unlike Path.mkdir, which recurses."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for inner in reversed(missing):
        inner.mkdir(exist_ok=True)


def write_once(path: Path, is_complete: Callable[[], bool], write: Callable[[Path], None]) -> None:
    """Have the first process to come `write` a file or a folder unless `path` is complete.

    Others wait. `write` gets the place that `written_whole` yields.
    """
    make_folder(path.parent)
    with FileLock(f"{path}.lock"):
        if not is_complete():
            if path.exists():
                log.warning("%s is damaged or not complete: it is written again", path)
            with written_whole(path) as partial:
                write(partial)


def stored_rows(
    path: Path, rows: int, batches: Callable[[], Iterable[NDArray[Any]]], what: str, advice: str
) -> NDArray[Any]:
    """Return an array of `rows` rows, mapped into memory; one that is missing is written first.

    Args:
        path: A .npy file; its name holds a `digest` of whatever decides its content.
        rows: Number of rows.
        batches: Computes them in order: arrays (B, ...) of one shape and type.
        what: What they are, for the error that says how much room they need.
        advice: What to do when the disk is full.

    Raises:
        DataError: if the disk has too little room.
    """

    def write(partial: Path) -> None:
        start = 0
        for batch in batches():
            if start == 0:
                shape = (rows, *batch.shape[1:])
                n_bytes = math.prod(shape) * batch.dtype.itemsize
                require_room(path.parent, n_bytes, what, advice)
                array = new_array(partial, shape, batch.dtype)
            array[start : start + len(batch)] = batch
            start += len(batch)
        seal(partial, array)

    def is_complete() -> bool:
        array = mapped(path)
        return array is not None and len(array) == rows

    if not is_complete():
        write_once(path, is_complete, write)
    return np.load(path, mmap_mode="r")


def new_array(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """An array to fill, mapped to a .npy file; `seal` it then."""
    return np.lib.format.open_memmap(path, "w+", dtype, shape)


def seal(path: Path, array: np.memmap) -> None:
    """Put the checksums of an array that is filled behind it."""
    array.flush()
    with path.open("ab") as file:
        file.write(_seal_of(array))


def mapped(path: Path) -> NDArray[Any] | None:
    """The array in a file, mapped into memory; None if the file is missing or damaged."""
    try:
        array = np.load(path, mmap_mode="r")
        with path.open("rb") as file:
            file.seek(array.offset + array.nbytes)
            return array if file.read() == _seal_of(array) else None
    except (OSError, ValueError, EOFError):
        return None


def _seal_of(array: NDArray[Any]) -> bytes:
    """CRC-32 of each block of an array's bytes, computed on all cores."""
    content = array.reshape(-1).view(np.uint8)
    starts = range(0, len(content), BLOCK)
    with ThreadPoolExecutor() as pool:
        sums = pool.map(lambda start: zlib.crc32(content[start : start + BLOCK].data), starts)
        return MARK + np.fromiter(sums, np.uint32).tobytes()


def require_room(folder: Path, n_bytes: int, what: str, advice: str) -> None:
    """Make a folder; raise DataError when that fails or its disk has less room than that."""
    try:
        make_folder(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise DataError(f"{what} cannot be kept in {folder}: {error}; {advice}") from error
    if n_bytes > free:
        raise DataError(
            f"{what} need {n_bytes / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free on the "
            f"disk of {folder}: {advice}"
        )


def file_stamp(path: Path) -> tuple[str, int, int]:
    """What tells that a file was replaced: its absolute path, size and modification time."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return str(path.absolute()), -1, -1
    return str(path.absolute()), status.st_size, status.st_mtime_ns


def digest(*parts: Any) -> str:
    """Hexadecimal SHA-256 of bytes, and of how other values print."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part if isinstance(part, bytes) else repr(part).encode())
    return content.hexdigest()


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
