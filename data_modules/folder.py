"""Any folder of images: one's own part, with or without defects, with or without masks.

Three trees are understood: `train` and `test/<good or defect>`; two folders, one of normal and one
of defective images; and, for `predict` alone, images lying anywhere below the root.
"""

from pathlib import Path
from typing import Any

from data_modules.base import AnomalyDataModule
from data_modules.catalogue import name_share
from data_modules.problems import DataError, WrongTreeError
from data_modules.reading.images import IMAGE_SUFFIXES, MaskRule
from data_modules.reading.layout import (
    NORMAL_FOLDERS,
    folders_in,
    images_below,
    images_in,
    normal_records,
    pair_masks,
    right_folder,
)
from data_modules.records import Record, Split

TRAIN_SHARE = 0.8


class Folder(AnomalyDataModule):
    """Images of one kind of part; `category` names it, else the root's name does.

    Args:
        root: Folder that all others are relative to.
        train: Folder of normal training images, also in folders inside it.
        test: Folder with one folder per kind of test image: `good` (or `ok`, `normal`), and any
            other name for a defect.
        normal_dir: Instead of `train` and `test`: folder of normal images, of which 80 %, picked
            by a hash of their names, train.
        abnormal_dir: Folder of defective images that goes with `normal_dir`.
        mask_dir: Folder of masks that mirrors the folders of defective images: a mask has its
            image's stem, or that and `_mask`. Without masks only image metrics are computed.
        mask_rule: `half`: a mask marks what is above half of the largest possible value;
            `nonzero`: any value but 0, for masks of class numbers.
        settings: What every data set takes.
    """

    tree = "train/, test/good/, test/<defect>/, or normal_dir and abnormal_dir, or any images"

    def __init__(
        self,
        root: str = "",
        train: str = "train",
        test: str = "test",
        normal_dir: str | None = None,
        abnormal_dir: str | None = None,
        mask_dir: str | None = None,
        mask_rule: MaskRule = "half",
        **settings: Any,
    ) -> None:
        super().__init__(root, **settings)
        self.mask_rule = mask_rule
        self.train = self.root / train
        self.test = self.root / test
        self.normal_dir = self.root / normal_dir if normal_dir else None
        self.abnormal_dir = self.root / abnormal_dir if abnormal_dir else None
        self.masks = self.root / (mask_dir or "ground_truth")
        named = {
            "normal_dir": self.normal_dir,
            "abnormal_dir": self.abnormal_dir,
            "mask_dir": self.masks if mask_dir else None,
        }
        for option, folder in named.items():
            if folder is not None and not folder.is_dir():
                raise WrongTreeError(f"Folder: there is no folder {folder} (data.{option})")

    @property
    def has_masks(self) -> bool:
        """Whether there is a folder of masks."""
        return self.masks.is_dir()

    def categories_in(self, root: Path) -> list[str]:
        """One: the name that was asked for, or the root's."""
        if not any(root.iterdir()):
            return []
        if isinstance(self.category, list) and len(self.category) > 1:
            raise DataError(f"Folder holds one category, not {', '.join(self.category)}")
        name = self.category if isinstance(self.category, str) else self.category[0]
        return [root.resolve().name if name == "all" else name]

    def list_category(self, category: str) -> list[Record]:
        """Records of the train and test folders, or of the normal and abnormal ones."""
        if self.normal_dir is None:
            if not self.train.is_dir() and not self.test.is_dir():
                raise WrongTreeError(self._no_folders())
            records = normal_records(images_below(self.train), "train", category)
            for folder in folders_in(self.test):
                if folder.name in NORMAL_FOLDERS:
                    records += normal_records(images_below(folder), "test", category)
                else:
                    records += self._defective(folder, self.test, category)
            return records
        records = []
        for image in images_below(self.normal_dir):
            split: Split = "train" if name_share(image.name) < TRAIN_SHARE else "test"
            records += normal_records([image], split, category)
        if self.abnormal_dir is not None:
            records += self._defective(self.abnormal_dir, self.abnormal_dir, category)
        return records

    def list_masks(self, category: str) -> list[Path]:
        """All images below the folder of masks."""
        return list(images_below(self.masks))

    def predict_records(self) -> list[Record]:
        """Every image below the root but the masks, whatever it shows."""
        if not self.root.is_dir():
            raise DataError(f"Folder: there is no folder {self.root} (data.root)")
        images = [image for image in images_below(self.root) if self.masks not in image.parents]
        if not images:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise DataError(f"Folder: no images below {self.root} (data.root); read are {suffixes}")
        return normal_records(images, "test", self.categories[0])

    def _no_folders(self) -> str:
        train, test = self.train.relative_to(self.root), self.test.relative_to(self.root)
        hint = right_folder(
            self.root, lambda folder: (folder / train).is_dir() or (folder / test).is_dir()
        )
        return (
            f"Folder: {self.root} (data.root) has neither {train}/ (data.train) nor {test}/ "
            f"(data.test); without them only predict works.{hint}"
        )

    def _defective(self, folder: Path, start: Path, category: str) -> list[Record]:
        """Records of one folder of defects, and of those inside it."""
        records = []
        images = images_in(folder)
        masks = pair_masks(images, self.masks / folder.relative_to(start))
        for image, mask in zip(images, masks, strict=True):
            found = mask if self.has_masks else None
            records.append(Record(image, found, 1, "test", category, folder.name))
        for inner in folders_in(folder):
            records += self._defective(inner, start, category)
        return records
