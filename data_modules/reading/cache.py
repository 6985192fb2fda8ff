"""Decoded images on disk: a PNG is decoded once, not once an epoch.

Decoding a 1024-pixel PNG costs more than a training step on a large GPU. Each split of a category
becomes one folder with `images.npy`, uint8 at training size, and `masks.npy`, mapped into memory
and so shared by all workers and processes. The folder's name holds a hash of everything that
decides the pixels: files, their sizes and modification times, resizing, mask rule and `FORMAT`.
It is written under another name and renamed when complete, so what a killed process leaves is
never read. It may be removed whenever nothing runs.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from data_modules.problems import DataError, ImageError, Problem, raise_any
from data_modules.reading.check import check_files
from data_modules.reading.images import MaskRule, Pixels, load
from data_modules.records import Record

FORMAT = 1  # raise it whenever the same files would give other pixels


def user_cache_dir() -> Path:
    """`lightning_ad` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_ad"


class Shelf:
    """Decoded images of one category and split."""

    def __init__(
        self, directory: Path, name: str, records: Sequence[Record], size: int, rule: MaskRule
    ) -> None:
        self.records = records
        self.size = size
        self.rule = rule
        self.folder = directory / f"{name}-{size}-{self._key()[:16]}"
        self.masked = [record for record in records if record.label and record.masks]
        self.rows = {str(record.image): row for row, record in enumerate(records)}
        self.mask_rows = {str(record.image): row for row, record in enumerate(self.masked)}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each file of the folder."""
        square = (self.size, self.size)
        return {"images": (len(self.records), *square, 3), "masks": (len(self.masked), *square)}

    @property
    def n_bytes(self) -> int:
        """Size on disk."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def is_complete(self) -> bool:
        """Whether the folder can be read; a file cut short or of another shape does not count."""
        for file, shape in self.shapes.items():
            array = mapped(self.folder / f"{file}.npy")
            if array is None or array.shape != shape:
                return False
        return True

    @cached_property
    def maps(self) -> tuple[Pixels, Pixels]:
        """Images and masks, mapped into memory by whoever reads first in each process."""
        images, masks = (
            np.load(self.folder / f"{file}.npy", mmap_mode="r") for file in self.shapes
        )
        return images, masks

    def load(self, record: Record) -> tuple[Pixels, Pixels]:
        """Image and mask of a record, as `images.load` decodes them."""
        images, masks = self.maps
        row = self.mask_rows.get(str(record.image))
        image = np.array(images[self.rows[str(record.image)]])
        return image, np.zeros(image.shape[:2], np.uint8) if row is None else np.array(masks[row])

    def build(self, progress: Progress) -> list[Problem]:
        """Decode into a temporary folder and rename it; the files that could not be decoded."""
        with FileLock(f"{self.folder}.lock"):
            if self.is_complete():
                return []
            for left_over in self.folder.parent.glob(f"{self.folder.name}.*.partial"):
                shutil.rmtree(left_over)
            partial = Path(f"{self.folder}.{os.getpid()}.partial")
            partial.mkdir()
            problems = self._write(partial, progress)
            if problems:
                shutil.rmtree(partial)
                return problems
            shutil.rmtree(self.folder, ignore_errors=True)
            partial.rename(self.folder)
            return []

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is not forked maps the files itself instead of being sent their content."""
        return {name: value for name, value in vars(self).items() if name != "maps"}

    def _write(self, folder: Path, progress: Progress) -> list[Problem]:
        images, masks = (
            np.lib.format.open_memmap(folder / f"{file}.npy", "w+", np.uint8, shape)
            for file, shape in self.shapes.items()
        )

        def decode(row: int) -> Problem | None:
            record = self.records[row]
            try:
                images[row], mask = load(record, self.size, self.rule)
            except ImageError as error:
                return error.problem
            if str(record.image) in self.mask_rows:
                masks[self.mask_rows[str(record.image)]] = mask
            return None

        with ThreadPoolExecutor() as pool:
            found = progress.track(
                pool.map(decode, range(len(self.records))),
                len(self.records),
                description=f"decoding {self.records[0].category} {self.records[0].split}",
            )
            problems = [problem for problem in found if problem]
        images.flush()
        masks.flush()
        return problems

    def _key(self) -> str:
        files: list[tuple[str, int, int]] = []
        for record in self.records:
            for path in (record.image, *(record.masks if record.label else ())):
                try:
                    status = path.stat()
                    files.append((str(path.absolute()), status.st_size, status.st_mtime_ns))
                except FileNotFoundError:
                    files.append((str(path.absolute()), -1, -1))
        content = json.dumps([FORMAT, self.size, self.rule, files])
        return hashlib.sha256(content.encode()).hexdigest()


class DecodedCache:
    """Pixels of records from the cache; where it is not complete, it is filled first.

    Raises DataError that lists every file that cannot be decoded, or says how much room is missing.
    """

    def __init__(
        self, directory: Path, name: str, records: Sequence[Record], size: int, rule: MaskRule
    ) -> None:
        groups = defaultdict(list)
        for record in records:
            groups[record.category, record.split].append(record)
        self.shelves = {
            (category, split): Shelf(directory, f"{name}-{category}-{split}", group, size, rule)
            for (category, split), group in groups.items()
        }
        missing = [shelf for shelf in self.shelves.values() if not shelf.is_complete()]
        if missing:
            check_files(name, [record for shelf in missing for record in shelf.records])
            require_room(directory, missing)
            with Progress(
                *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)
            ) as progress:
                megabytes = sum(shelf.n_bytes for shelf in missing) / 1e6
                message = f"decoded images: writing {megabytes:,.0f} MB below {directory}"
                progress.console.print(message, markup=False, highlight=False, soft_wrap=True)
                raise_any(name, [problem for shelf in missing for problem in shelf.build(progress)])

    def __call__(self, record: Record) -> tuple[Pixels, Pixels]:
        """Image and mask of a record."""
        return self.shelves[record.category, record.split].load(record)


def mapped(path: Path) -> NDArray[Any] | None:
    """The array in a file, mapped into memory; None if the file is missing or damaged.

    Even of a file that was renamed when complete, a power failure may leave a part or nothing.
    """
    try:
        return np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None


def require_room(directory: Path, shelves: Iterable[Shelf]) -> None:
    """Make the directory; raise DataError when that fails or its disk has too little room."""
    advice = (
        "point data.cache_dir to another place, or set data.cache to false to decode in every epoch"
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {directory}: {error}; {advice}"
        ) from error
    needed = sum(shelf.n_bytes for shelf in shelves)
    if needed > free:
        raise DataError(
            f"decoded images need {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free on "
            f"the disk of {directory}: {advice}"
        )
