"""The region of interest: which pixels of photographs are scored, calibrated on and counted.

One mask serves all images, or those of a category, or each image has its own. White marks what is
of interest. A mask has the size of its photographs.
"""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data_modules.problems import DataError, ImageError, Problem, raise_any
from data_modules.reading.images import Pixels, decode, require_same_size, size_of
from data_modules.reading.walk import IMAGE_SUFFIXES, images_in
from data_modules.records import Record

ALL = ""
"""Stands for all categories; no category is called so."""


class RegionOfInterest:
    """Masks uint8 0/1 (H, W) by category, or by `ALL`; or the folder of each image's own.

    Args:
        masks: by category.
        folder: mirrors the images' folder ``root``, where there are no masks by category.
        root: of the data.
    """

    def __init__(
        self, masks: dict[str, Pixels], folder: Path | None = None, root: Path | None = None
    ) -> None:
        self.masks, self.folder, self.root = masks, folder, root

    def mask(self, image: Path, category: str, size: tuple[int, int]) -> Pixels:
        """The mask of an image of this height and width.

        A single mask is everyone's, whatever the categories are called. Raises an ImageError if
        there is none, or one of another size.
        """
        if self.folder is not None:
            file = self._file_of(image)
            mask = _read(file)
        else:
            file = Path(f"the region of interest of {category}")
            only = next(iter(self.masks.values())) if len(self.masks) == 1 else None
            found = self.masks.get(category, only)
            if found is None:
                names = ", ".join(self.masks)
                raise ImageError(Problem("no region of interest", image, f"there is of {names}"))
            mask = found
        require_same_size(file, (mask.shape[0], mask.shape[1]), size)
        return mask

    def require_masks(self, records: Iterable[Record]) -> None:
        """Raise one error for all images whose mask is missing, empty or of another size."""
        with ThreadPoolExecutor() as pool:
            raise_any("data.roi", [p for each in pool.map(self._problems, records) for p in each])

    def _problems(self, record: Record) -> list[Problem]:
        try:
            self.mask(record.image, record.category, size_of(record.image))
        except ImageError as error:
            return [error.problem]
        return []

    def digest(self, records: Iterable[Record]) -> str:
        """What tells this region from another, as far as the records go."""
        content = hashlib.sha256()
        for category, mask in sorted(self.masks.items()):
            content.update(f"{category} {mask.shape}".encode() + mask.tobytes())
        files = [self._file_of(record.image) for record in records] if self.folder else []
        for file in sorted(file for file in set(files) if file.is_file()):
            content.update(file.name.encode(errors="surrogateescape") + file.read_bytes())
        return content.hexdigest()[:12]

    def _file_of(self, image: Path) -> Path:
        """Where an image's mask lies: at the image's own place, in whatever format."""
        assert self.folder is not None and self.root is not None
        below = image.relative_to(self.root) if image.is_relative_to(self.root) else image.name
        beside = self.folder / below
        found = (beside.with_suffix(suffix) for suffix in (".png", *sorted(IMAGE_SUFFIXES)))
        return next((file for file in found if file.exists()), beside.with_suffix(".png"))


def region_at(path: Path, root: Path, categories: Sequence[str]) -> RegionOfInterest:
    """The region of interest in a file, or in a folder with files by category or by image."""
    if path.is_file():
        return RegionOfInterest({ALL: _read(path)})
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path} (data.roi)")
    by_name = {file.stem: file for file in images_in(path)}
    files = {name: by_name[name] for name in categories if name in by_name}
    if not files:
        return RegionOfInterest({}, path, root)
    missing = [name for name in categories if name not in files]
    if missing:
        raise DataError(f"{path} (data.roi) has no mask of {', '.join(missing)}")
    return RegionOfInterest({name: _read(file) for name, file in files.items()})


def _read(file: Path) -> Pixels:
    """A mask: what is above half of its own largest value."""
    values = decode(file)
    if values.ndim == 3:
        values = values[..., :3].max(axis=2)
    if not values.any():
        raise ImageError(Problem("empty region of interest", file, "white marks what counts"))
    return (values > values.max() / 2).astype(np.uint8)
