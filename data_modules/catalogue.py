"""What a data set holds: categories, records, and which normal images are held out.

Validation holds out normal *training* images, chosen by a hash of their names, so that their order
plays no part and new files change few of them. Photographs of one specimen stay together, as
thresholds calibrated on specimens that were trained on would be too low for others.
"""

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from data_modules.problems import DataError, ImageError, Problem, WrongTreeError
from data_modules.reading.images import MaskRule, decode, require_complete
from data_modules.reading.layout import NORMAL_FOLDERS, find_categories, looks_normal
from data_modules.reading.walk import folders_below, images_in, unread_images_in
from data_modules.records import Counts, Record, Split

SAMPLE = 8  # images whose values are looked at before a run
FILES_READ = 16
"""How many files of a split `files_hash` reads: these follow from the names alone."""


class Catalogue(ABC):
    """The listing of a data set; subclasses say how its publisher's tree is read."""

    root: Path
    category: str | list[str]
    val_fraction: float
    tree: ClassVar[str] = "<category>/train/good, <category>/test/<defect>"
    mask_rule: MaskRule = "half"
    published: ClassVar[Mapping[str, Counts]] = {}
    published_empty_masks: ClassVar[frozenset[str]] = frozenset()

    def locate(self, root: str) -> Path:
        """The folder to read, from the option `root`; an error if there is none to fall back on."""
        if not root:
            raise WrongTreeError(f"{self.data_set} needs data.root, a folder with {self.tree}")
        return Path(root).expanduser()

    @abstractmethod
    def categories_in(self, root: Path) -> list[str]:
        """Names of the categories that a folder holds, sorted; none if it is not this data set."""

    @abstractmethod
    def list_category(self, category: str) -> list[Record]:
        """All records of one category, each mask where it has to be, whether it is there or not."""

    def list_masks(self, category: str) -> list[Path]:
        """All files of one category that are there to be masks: to find those without an image.

        Unless a subclass says more, those that its images name.
        """
        return [mask for record in self.list_category(category) for mask in record.masks]

    @property
    def has_masks(self) -> bool:
        """Whether defects are marked pixel by pixel."""
        return True

    @property
    def only_predicts(self) -> bool:
        """Whether the root holds photographs to score and nothing to train or to test on."""
        return False

    @property
    def data_set(self) -> str:
        """The data set's name: its class's."""
        return type(self).__name__

    @cached_property
    def categories(self) -> list[str]:
        """The chosen categories; their order numbers them in a batch."""
        known = find_categories(self.root, self.categories_in, self.data_set, self.tree)
        if self.category == "all":
            return known
        chosen = [self.category] if isinstance(self.category, str) else list(self.category)
        unknown = [category for category in chosen if category not in known]
        if unknown or not chosen:
            names = ", ".join(map(repr, unknown)) or "none"
            raise DataError(
                f"{self.data_set}: unknown category {names} (data.category); "
                f"{self.root} holds: {', '.join(known)}"
            )
        repeated = [name for name, count in Counter(chosen).items() if count > 1]
        if repeated:
            raise DataError(f"{self.data_set}: data.category names {', '.join(repeated)} twice")
        return chosen

    @cached_property
    def _listed(self) -> list[Record]:
        listed = []
        for category in self.categories:
            records = self.list_category(category)
            self._require_consistent(records, category)
            listed += sorted(records, key=lambda record: (record.split, str(record.image)))
        return listed

    def _require_consistent(self, records: list[Record], category: str) -> None:
        """Refuse what a `list_category` must not return."""
        source = f"{self.data_set}.list_category('{category}') lists"
        for record in records:
            if record.category != category:
                raise DataError(f"{source} {record.image} as of category '{record.category}'")
            if record.split == "train" and record.label != 0:
                raise DataError(
                    f"{source} {record.image} for training with label {record.label}: it must be 0"
                )

    def records(self) -> list[Record]:
        """All records of the chosen categories: by category, then split, then path."""
        return list(self._listed)

    def listed(self, split: Split) -> list[Record]:
        """The records of one split, of which there may be none."""
        return [record for record in self._listed if record.split == split]

    def records_of(self, split: Split) -> list[Record]:
        """The records of one split; an error if there are none."""
        found = self.listed(split)
        if not found:
            raise DataError(
                f"{self.data_set}: {self.root} holds no {split} images of "
                f"{', '.join(self.categories)}; expected {self.tree}"
            )
        return found

    def predict_records(self) -> list[Record]:
        """The images that `predict` scores: the test images, whose masks need not be there."""
        return [replace(record, mask=None) for record in self.records_of("test")]

    def files_hash(self, split: Split) -> str:
        """What tells a split's files from others of the same names: sizes, and some contents.

        It does not depend on where the data lies. Of most files only the size is asked for, so that
        thousands take no longer than to list them.
        """
        paths = {path for record in self.listed(split) for path in (record.image, *record.masks)}
        names = {os.path.relpath(path, self.root): path for path in paths if path.is_file()}
        read = sorted(names, key=lambda name: names_hash([name]))[:FILES_READ]
        sizes = [f"{name} {names[name].stat().st_size}" for name in sorted(names)]
        contents = [hashlib.sha256(names[name].read_bytes()).hexdigest() for name in read]
        return names_hash([*sizes, *contents])[:16]

    def is_held_out(self, records: Sequence[Record]) -> list[bool]:
        """Which of one category's training records validate: those whose names hash lowest.

        All photographs of a specimen do or none: as many specimens as fit, at least one.
        """
        wanted = round(len(records) * self.val_fraction)
        held_out: set[int] = set()
        for photographs in _specimens(records, self.root)[:-1]:
            if not held_out or len(held_out) + len(photographs) <= wanted:
                held_out.update(photographs)
        return [index in held_out for index in range(len(records))]

    @cached_property
    def _train_and_held_out(self) -> tuple[list[Record], list[Record]]:
        by_category = defaultdict(list)
        for record in self.records_of("train"):
            by_category[record.category].append(record)
        train: list[Record] = []
        held_out: list[Record] = []
        short = [name for name in self.categories if len(by_category[name]) < 2]
        if short:
            raise DataError(
                f"{self.data_set}: {self.root} holds fewer than two training images of "
                f"{', '.join(short)}; two are needed, as one is held out for validation"
            )
        for records in by_category.values():
            for record, held in zip(records, self.is_held_out(records), strict=True):
                (held_out if held else train).append(record)
        return train, held_out

    def folders_of(self, category: str) -> list[Path]:
        """Folders whose images all belong to a category; unless a subclass says more, its own."""
        return [self.root / category]

    def left_out(self) -> list[Path]:
        """Images in the folders of the chosen categories that are neither scored nor masks."""
        known = {path for record in self._listed for path in (record.image, *record.masks)}
        found = []
        for category in self.categories:
            known.update(self.list_masks(category))
            for top in self.folders_of(category):
                for folder in folders_below(top):
                    found += [*images_in(folder), *unread_images_in(folder)]
        return [image for image in found if image not in known]

    def remarks(self) -> Iterator[Problem]:
        """What is odd about the chosen categories, though a run can go on."""
        for image in self.left_out():
            yield Problem("images left out", image, "they lie where none is looked for")
        counts = Counter((record.category, record.label) for record in self._listed)
        masked = Counter(record.category for record in self._listed if record.label and record.mask)
        for category in self.categories:
            defective = counts[category, 1]
            if defective and not masked[category]:
                detail = f"{defective} defective images of {category}, 0 masks: image metrics only"
                yield Problem("no masks", self.root, detail)
        for defect in sorted(
            {r.defect for r in self._listed if r.label and looks_normal(r.defect)}
        ):
            detail = f"its images count as defects; normal are {', '.join(NORMAL_FOLDERS)}"
            yield Problem("folder that sounds normal", Path(defect), detail)

    def first_peaks(self) -> list[tuple[Path, int]]:
        """Largest values of the first training images, of those with 16 bits."""
        found = []
        for record in self.listed("train")[:SAMPLE]:
            with suppress(ImageError):  # the check of all files says so
                if require_complete(record.image).deep:
                    found.append((record.image, int(decode(record.image).max())))
        return found

    def held_out_records(self) -> list[Record]:
        """The normal training images that only validate and calibrate."""
        return self._train_and_held_out[1]

    def holding_out(self, records: list[Record]) -> Self:
        """The same data, of which only these images validate and calibrate."""
        other = copy.copy(self)
        other._train_and_held_out = self.training_records(), records
        return other

    def training_records(self) -> list[Record]:
        """The normal training images without those held out."""
        return self._train_and_held_out[0]

    def folds(self, count: int) -> list[list[Record]]:
        """The training records in ``count`` parts, alike of each category, specimens together.

        Raises:
            DataError: if a category has fewer specimens than that.
        """
        folds: list[list[Record]] = [[] for _ in range(count)]
        for category in self.categories:
            own = [record for record in self._train_and_held_out[0] if record.category == category]
            specimens = _specimens(own, self.root)
            if len(specimens) < count:
                raise DataError(
                    f"{self.data_set}: {len(specimens)} training images or specimens of {category} "
                    f"cannot be parted into {count} folds (model.folds)"
                )
            sizes = [0] * count
            for photographs in specimens:
                smallest = sizes.index(min(sizes))
                sizes[smallest] += len(photographs)
                folds[smallest] += [own[place] for place in photographs]
        return folds


def _specimens(records: Sequence[Record], root: Path) -> list[list[int]]:
    """Places of each specimen's photographs among the records, ordered by a hash of its name.

    An image without a specimen is one of its own; so is each where all show the same.
    """
    alike = len({record.specimen for record in records}) == 1
    places: dict[tuple[str, int | str], list[int]] = defaultdict(list)
    names = identities([record.image for record in records], root)
    for place, record in enumerate(records):
        if alike or record.specimen is None:
            places[names_hash([names[place]]), place].append(place)
        else:
            places[names_hash([record.specimen]), record.specimen].append(place)
    return [places[key] for key in sorted(places, key=lambda key: key[0])]


def identities(images: Sequence[Path], root: Path) -> list[str]:
    """A name for each image by which to choose it: its file's, or its path if others share that."""
    names = Counter(image.name for image in images)
    return [image.name if names[image.name] == 1 else path_below(image, root) for image in images]


def path_below(path: Path, root: Path) -> str:
    """A file's path below `root`, the same on every system; its whole path if it lies elsewhere."""
    return (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()


def name_share(name: str) -> float:
    """A number in [0, 1) that only depends on a name: to split where no split is given."""
    return int(names_hash([name])[:8], 16) / 16**8


def names_hash(names: Iterable[str]) -> str:
    """SHA-256 over names in the given order."""
    text = "\n".join(names)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
