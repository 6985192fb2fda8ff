"""Decoded images on disk: a PNG is decoded once, not once an epoch.

Decoding a 1024-pixel PNG costs more than a training step on a large GPU. Each split of a category
becomes one folder with `images.npy`, uint8 as a detector gets them, and `masks.npy`, mapped into
memory and so shared by all workers and processes. The folder's name holds a hash of everything that
decides the pixels: files, their sizes and modification times, resizing, mask rule and `FORMAT`.
It may be removed whenever nothing runs; damaged, it is written again.
"""

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from data_modules.problems import ImageError, Problem, raise_any
from data_modules.reading.check import check_files
from data_modules.reading.geometry import height_and_width
from data_modules.reading.images import Decoding, Pixels, size_of
from data_modules.reading.store import (
    digest,
    file_stamp,
    mapped,
    new_array,
    require_room,
    seal,
    write_once,
)
from data_modules.records import Record

log = logging.getLogger(__name__)

SLOW_TO_CHECK = 4e9  # bytes, about a second on a fast disk
FORMAT = 1  # raise it whenever the same files would give other pixels
ADVICE = (
    "point data.cache_dir to another place, or set data.cache to false to decode in every epoch"
)


def user_cache_dir() -> Path:
    """`lightning_ad` in the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightning_ad"


class _UndecodableError(Exception):
    def __init__(self, problems: list[Problem]) -> None:
        super().__init__()
        self.problems = problems


class Shelf:
    """Decoded images of one category and split."""

    def __init__(
        self, directory: Path, name: str, records: Sequence[Record], decoding: Decoding
    ) -> None:
        self.records = records
        self.decoding = decoding
        size = "x".join(str(side) for side in dict.fromkeys(height_and_width(decoding.size)))
        self.folder = directory / f"{name}-{size}-{self._key()[:16]}"
        self.masked = [record for record in records if record.label and record.masks]
        self.rows = {str(record.image): row for row, record in enumerate(records)}
        self.mask_rows = {str(record.image): row for row, record in enumerate(self.masked)}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each file of the folder."""
        size = height_and_width(self.decoding.size)
        return {"images": (len(self.records), *size, 3), "masks": (len(self.masked), *size)}

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

    def of_image(self, array: Pixels, row: int) -> Pixels:
        """The part of the images' array that is of one record."""
        return array[row]

    def of_mask(self, array: Pixels, row: int) -> Pixels:
        """The part of the masks' array that is of one record with a mask."""
        return array[row]

    def load(self, record: Record) -> tuple[Pixels, Pixels]:
        """Image and mask of a record, as they were decoded."""
        images, masks = self.maps
        row = self.mask_rows.get(str(record.image))
        image = np.array(self.of_image(images, self.rows[str(record.image)]))
        if row is None:
            return image, np.zeros(image.shape[:2], np.uint8)
        return image, np.array(self.of_mask(masks, row))

    def build(self, progress: Progress) -> list[Problem]:
        """Decode, once for all processes; the files that cannot be decoded, or none."""
        try:
            write_once(self.folder, self.is_complete, lambda folder: self._decode(folder, progress))
        except _UndecodableError as error:
            return error.problems
        return []

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is not forked maps the files itself instead of being sent their content."""
        return {name: value for name, value in vars(self).items() if name != "maps"}

    def _decode(self, folder: Path, progress: Progress) -> None:
        folder.mkdir()
        images, masks = (
            new_array(folder / f"{file}.npy", shape, np.uint8)
            for file, shape in self.shapes.items()
        )

        def decode(row: int) -> Problem | None:
            record = self.records[row]
            try:
                self.of_image(images, row)[:], mask = self.decoding(record)
            except ImageError as error:
                return error.problem
            if str(record.image) in self.mask_rows:
                self.of_mask(masks, self.mask_rows[str(record.image)])[:] = mask
            return None

        with ThreadPoolExecutor() as pool:
            found = progress.track(
                pool.map(decode, range(len(self.records))),
                len(self.records),
                description=escape(f"decoding {self.records[0].category} {self.records[0].split}"),
            )
            problems = [problem for problem in found if problem]
        if problems:
            raise _UndecodableError(problems)
        for file, array in zip(self.shapes, (images, masks), strict=True):
            seal(folder / f"{file}.npy", array)

    def _key(self) -> str:
        files = [
            file_stamp(path)
            for record in self.records
            for path in (record.image, *(record.masks if record.label else ()))
        ]
        changed = self.decoding.changed()
        decided = [
            FORMAT,
            self.decoding.size,
            self.decoding.rule,
            files,
            *([changed] if changed else []),
        ]
        return digest(json.dumps(decided).encode())


class WholeShelf(Shelf):
    """Photographs in their own sizes, of one category and split: one behind the other."""

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each photograph."""
        return [size_of(record.image) for record in self.records]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each file of the folder."""
        return {"images": (self._starts[-1], 3), "masks": (self._mask_starts[-1],)}

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(math.prod(size) for size in self.sizes)]

    @cached_property
    def _mask_starts(self) -> list[int]:
        rows = [self.rows[str(record.image)] for record in self.masked]
        return [0, *accumulate(math.prod(self.sizes[row]) for row in rows)]

    def of_image(self, array: Pixels, row: int) -> Pixels:
        """The part of the images' array that is of one record."""
        return array[self._starts[row] : self._starts[row + 1]].reshape(*self.sizes[row], 3)

    def of_mask(self, array: Pixels, row: int) -> Pixels:
        """The part of the masks' array that is of one record with a mask."""
        size = self.sizes[self.rows[str(self.masked[row].image)]]
        return array[self._mask_starts[row] : self._mask_starts[row + 1]].reshape(size)


class DecodedCache:
    """Pixels of records from the cache; where it is not complete, it is filled first.

    Raises DataError that lists every file that cannot be decoded, or says how much room is missing.
    """

    def __init__(
        self, directory: Path, name: str, records: Sequence[Record], decoding: Decoding
    ) -> None:
        groups = defaultdict(list)
        for record in records:
            groups[record.category, record.split].append(record)
        shelf = Shelf
        if decoding.fit == "tile":
            check_files(name, records)  # whose sizes are asked for next
            shelf = WholeShelf
        self.shelves = {
            (category, split): shelf(directory, f"{name}-{category}-{split}", group, decoding)
            for (category, split), group in groups.items()
        }
        known = sum(s.n_bytes for s in self.shelves.values() if s.folder.is_dir())
        if known > SLOW_TO_CHECK:
            log.info("decoded images: checking %s MB below %s", f"{known / 1e6:,.0f}", directory)
        missing = [shelf for shelf in self.shelves.values() if not shelf.is_complete()]
        if missing:
            check_files(name, [record for shelf in missing for record in shelf.records])
            n_bytes = sum(shelf.n_bytes for shelf in missing)
            require_room(directory, n_bytes, "decoded images", ADVICE)
            with Progress(
                *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)
            ) as progress:
                message = f"decoded images: writing {n_bytes / 1e6:,.0f} MB below {directory}"
                progress.console.print(message, markup=False, highlight=False, soft_wrap=True)
                raise_any(name, [problem for shelf in missing for problem in shelf.build(progress)])

    def __call__(self, record: Record) -> tuple[Pixels, Pixels]:
        """Image and mask of a record."""
        return self.shelves[record.category, record.split].load(record)
