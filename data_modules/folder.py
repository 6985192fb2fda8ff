"""Any images: one's own part, with or without defects, with or without masks.

Three trees are understood: `train` and `test/<good or defect>`; two folders, one of normal and one
of defective images; and, for `predict` alone, images lying anywhere below the root, or files. A
folder can also be watched: what arrives there is scored.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_modules.base import AnomalyDataModule
from data_modules.catalogue import identities, name_share
from data_modules.problems import DataError, Problem, WrongTreeError
from data_modules.reading.dataset import Described
from data_modules.reading.geometry import Fit
from data_modules.reading.images import MaskRule
from data_modules.reading.layout import (
    NORMAL_FOLDERS,
    holds_normal,
    looks_normal,
    normal_records,
    pair_masks,
    right_folder,
)
from data_modules.reading.readable import Readable, readable
from data_modules.reading.texts import read_text
from data_modules.reading.walk import (
    IMAGE_SUFFIXES,
    folders_below,
    folders_in,
    images_in,
    inner_folder,
    is_image,
)
from data_modules.reading.watch import Arrivals
from data_modules.records import UNKNOWN, DescribedBatch, Record, Split

TRAIN_SHARE = 0.8
DEFECT_FOLDERS = frozenset(
    {"abnormal", "anomalous", "anomaly", "bad", "broken", "defect", "defective", "defects", "fail"}
    | {"faulty", "ko", "ng", "nok"}
)
"""Names that no folder of training images has for nothing."""


class Folder(AnomalyDataModule):
    """Images of one kind of part; `category` names it, else the root's name does.

    Args:
        root: Folder that all others are relative to; to predict, also a file, a pattern such as
            `photos/*.png`, a list of them, or a text file with one of them on each line, relative
            to where the text file lies.
        train: Folder of normal training images, also in folders inside it.
        test: Folder with one folder per kind of test image: `good` (or `ok`, `normal`), and any
            other name for a defect.
        normal: Names of the folders in `test` whose images are normal, where they are called
            otherwise; an empty list if all images are defective.
        normal_dir: Instead of `train` and `test`: folder of normal images, of which 80 %, picked
            by a hash of their names, train.
        abnormal_dir: Folder of defective images that goes with `normal_dir`.
        mask_dir: Folder of masks that mirrors the folders of defective images: a mask has its
            image's stem, or that and `_mask`. Without masks only image metrics are computed.
        mask_rule: `half`: a mask marks what is above half of the largest possible value;
            `nonzero`: any value but 0, for masks of class numbers.
        fit: As in every data set, but `pad` if not given: one's own photographs keep their shape.
        settings: What every data set takes.
    """

    tree = "train/, test/good/, test/<defect>/, or normal_dir and abnormal_dir, or any images"

    def __init__(
        self,
        root: str | list[str] = "",
        train: str = "train",
        test: str = "test",
        normal: list[str] | None = None,
        normal_dir: str | None = None,
        abnormal_dir: str | None = None,
        mask_dir: str | None = None,
        mask_rule: MaskRule = "half",
        fit: Fit = "pad",
        **settings: Any,
    ) -> None:
        self.files = _files(root)
        top = _common_folder(self.files) if self.files else str(root)
        super().__init__(top, fit=fit, **settings)
        self.mask_rule = mask_rule
        self.train = self._inside(train)
        self.test = self._inside(test)
        self.normal = normal
        self.normal_dir = self._inside(normal_dir) if normal_dir else None
        self.abnormal_dir = self._inside(abnormal_dir) if abnormal_dir else None
        self.masks = self._inside(mask_dir or "ground_truth")
        named = {
            "normal_dir": self.normal_dir,
            "abnormal_dir": self.abnormal_dir,
            "mask_dir": self.masks if mask_dir else None,
        }
        for option, folder in named.items():
            if folder is not None and not folder.is_dir():
                raise WrongTreeError(f"Folder: there is no folder {folder} (data.{option})")

    def _inside(self, name: str) -> Path:
        folder = self.root / Path(name).expanduser()
        return inner_folder(folder.parent, folder.name) if folder.name else folder

    @property
    def has_masks(self) -> bool:
        """Whether there is a folder of masks."""
        return self.masks.is_dir()

    @property
    def only_predicts(self) -> bool:
        """Whether the root holds photographs and no tree to train or to test on."""
        tree = self.train.is_dir() or self.test.is_dir() or self.normal_dir is not None
        return bool(self.files) or (not tree and bool(images_in(self.root)))

    def categories_in(self, root: Path) -> list[str]:
        """One: the name that was asked for, or the root's."""
        if not any(root.iterdir()) and self.arrivals is None:
            return []
        if isinstance(self.category, list) and len(self.category) > 1:
            raise DataError(f"Folder holds one category, not {', '.join(self.category)}")
        name = self.category if isinstance(self.category, str) else self.category[0]
        return [root.resolve().name if name == "all" else name]

    def list_category(self, category: str) -> list[Record]:
        """Records of the train and test folders, or of the normal and abnormal ones."""
        if self.files:
            raise WrongTreeError("Folder: data.root names files; with them only predict works")
        if self.normal_dir is not None:
            return self._normal_and_abnormal(self.normal_dir, category)
        if not self.train.is_dir() and not self.test.is_dir():
            raise WrongTreeError(self._no_folders())
        kinds = folders_in(self.test)
        normal = self._normal_folders(kinds)
        _require_normal(self.train, {folder.name.casefold() for folder in kinds} - normal)
        records = normal_records(self._images(folders_below(self.train)), "train", category)
        for folder in kinds:
            if folder.name.casefold() in normal:
                records += normal_records(self._images(folders_below(folder)), "test", category)
            else:
                records += self._defective(folder, self.test, category)
        return records

    def _normal_and_abnormal(self, normal_dir: Path, category: str) -> list[Record]:
        _require_normal(normal_dir, set())
        images = self._images(folders_below(normal_dir))
        records = []
        for image, name in zip(images, identities(images, self.root), strict=True):
            split: Split = "train" if name_share(name) < TRAIN_SHARE else "test"
            records += normal_records([image], split, category)
        if self.abnormal_dir is not None:
            records += self._defective(self.abnormal_dir, self.abnormal_dir, category)
        return records

    def _normal_folders(self, kinds: list[Path]) -> set[str]:
        """Names, case-folded, of the folders of normal test images; an error if that is unclear."""
        if self.normal is not None:
            return {name.casefold() for name in self.normal}
        known = [folder.name for folder in kinds if holds_normal(folder)]
        others = [folder.name for folder in kinds if not holds_normal(folder)]
        unclear = [name for name in others if looks_normal(name)] if known else others
        if unclear:
            raise DataError(
                f"Folder: are the images in {', '.join(unclear)} of {self.test} (data.test) "
                f"normal? Only folders called {', '.join(NORMAL_FOLDERS)} are taken to be: list in "
                "data.normal all that are, or nothing ([]) if every folder shows defects"
            )
        return {name.casefold() for name in known}

    def folders_of(self, category: str) -> list[Path]:
        """All of the root."""
        return [self.root]

    def list_masks(self, category: str) -> list[Path]:
        """All images below the folder of masks."""
        return [image for folder in folders_below(self.masks) for image in images_in(folder)]

    def predict_records(self) -> list[Record]:
        """Every image below the root but the masks, or the files named, whatever they show."""
        if not self.root.is_dir():
            raise DataError(f"Folder: there is no folder or file {self.root} (data.root)")
        images = self.files or self._images(folders_below(self.root))
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"Folder: no images below {self.root} (data.root); read are {suffixes}")
        return self._unlabelled(images)

    def _unlabelled(self, images: Sequence[Path]) -> list[Record]:
        category = self.categories[0]
        return [Record(image, None, UNKNOWN, "test", category, defect="") for image in images]

    def watch(self, known: set[str]) -> Arrivals:
        """Let `predict` go on with every image that arrives below the root, but those ``known``."""
        if self.files or not self.root.is_dir():
            raise DataError(f"Folder: {self.root} (data.root) is no folder that could be watched")

        def read(images: Sequence[Path]) -> tuple[DescribedBatch | None, list[Problem]]:
            records = self._unlabelled(images)
            dataset = Readable(Described(self._dataset(records, self.decoding)), [])
            return readable([dataset[index] for index in range(len(dataset))])

        self.arrivals = Arrivals(
            lambda: self._images(folders_below(self.root)), read, self.images_at_once, known
        )
        return self.arrivals

    def _no_folders(self) -> str:
        train, test = self.train.name, self.test.name
        hint = right_folder(
            self.root, lambda folder: (folder / train).is_dir() or (folder / test).is_dir()
        )
        return (
            f"Folder: {self.root} (data.root) has neither {train}/ (data.train) nor {test}/ "
            f"(data.test); without them only predict works.{hint}"
        )

    def _images(self, folders: Iterable[Path]) -> list[Path]:
        """The images in folders but those that are masks."""
        return [
            image
            for folder in folders
            if folder != self.masks and self.masks not in folder.parents
            for image in images_in(folder)
        ]

    def _defective(self, top: Path, start: Path, category: str) -> list[Record]:
        """Records of one folder of defects, and of those inside it."""
        records = []
        for folder in folders_below(top):
            images = self._images([folder])
            masks = pair_masks(images, self._masks_of(folder.relative_to(start)))
            for image, mask in zip(images, masks, strict=True):
                found = mask if self.has_masks else None
                records.append(Record(image, found, 1, "test", category, folder.name))
        return records

    def _masks_of(self, folder: Path) -> Path:
        masks = self.masks
        for name in folder.parts:
            masks = inner_folder(masks, name)
        return masks


def _require_normal(top: Path, defects: set[str]) -> None:
    """Raise a DataError if folders among the training images say that they hold something else."""
    for folder in folders_below(top):
        inner = folders_in(folder)
        suspect = [f for f in inner if f.name.casefold() in DEFECT_FOLDERS | defects]
        if any(map(holds_normal, inner)):
            suspect = [f for f in inner if not holds_normal(f)]
        if suspect:
            raise DataError(
                f"Folder: every image below {top} is taken to be normal, those in {suspect[0]} as "
                "well: move it elsewhere if it shows defects, or rename it if it does not"
            )


def _files(root: str | list[str]) -> list[Path]:
    """The images that a root names one by one, or by a pattern; none if it is a folder."""
    if isinstance(root, str):
        path = Path(root).expanduser()
        if path.is_dir() or not (path.exists() or glob.has_magic(root)):
            return []
    names = [root] if isinstance(root, str) else root
    return list(dict.fromkeys(file for name in names for file in _matches(name)))


def _matches(name: str) -> list[Path]:
    """The images that a file's name, a folder's or a pattern stands for; an error if none."""
    path = Path(name).expanduser()
    if path.suffix == ".txt" and path.is_file():
        return _listed_in(path)
    if path.is_dir():
        return [image for folder in folders_below(path) for image in images_in(folder)]
    if path.exists():
        return [path]
    found = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    images = [match for match in found if is_image(match.name) and match.is_file()]
    if not images:
        raise DataError(f"Folder: there is no image {name} (data.root)")
    return images


def _listed_in(file: Path) -> list[Path]:
    """The images that the lines of a text file stand for; an error with the line that is wrong."""
    found = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        name = line.strip()
        if name.casefold().endswith(".txt"):
            raise DataError(f"Folder: {file}, line {number}: a list names images, not {name}")
        try:
            found += _matches(str(file.parent / Path(name).expanduser())) if name else []
        except DataError as error:
            raise DataError(f"{error} as {file}, line {number}, says") from None
    if not found:
        raise DataError(f"Folder: {file} (data.root) names no images: expected one on each line")
    return found


def _common_folder(files: list[Path]) -> str:
    if len({file.parent for file in files}) == 1:
        return str(files[0].parent)
    return os.path.commonpath([file.parent.absolute() for file in files])
