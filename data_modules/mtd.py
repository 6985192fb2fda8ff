"""Magnetic-tile defects (Huang, Qiu, Yuan, The Visual Computer 2020).

Images and masks of one kind of defect share a folder and differ in their endings. Sizes and aspect
ratios vary; masks have grey values along edges. No split is published: the literature trains on
80 % of the defect-free tiles, on a list of 761 names that goes back to DifferNet.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from data_modules.base import AnomalyDataModule
from data_modules.catalogue import name_share
from data_modules.problems import DataError
from data_modules.reading.layout import folders_in, images_in
from data_modules.records import GOOD, Counts, Record, Split

NAME_LIST = "mtd_train_filenames.txt"
FREE = "MT_Free"
TRAIN_SHARE = 0.8


class MTD(AnomalyDataModule):
    """Magnetic tiles; `root` holds MT_Free/, MT_Blowhole/, ... The only category is `mtd`.

    Args:
        train_list: File with the names of the defect-free images to train on, one a line. If not
            given, `mtd_train_filenames.txt` in or beside `root` is taken, and where there is none
            a hash of each name picks 80 %.
        root: Folder that holds the data set as its publisher ships it.
        settings: What every data set takes.
    """

    tree = "MT_Free/Imgs, MT_Blowhole/Imgs, MT_Break/Imgs, MT_Crack/Imgs, ..."
    published: ClassVar[dict[str, Counts]] = {"mtd": Counts(761, 191, 392)}
    published_empty_masks = frozenset(
        f"{name}.png"
        for name in ("exp3_num_45042", "exp4_num_124690", "exp4_num_352527", "exp4_num_45057")
    )

    def __init__(
        self,
        root: str = "",
        train_list: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(root, **settings)
        self.train_list = Path(train_list).expanduser() if train_list else None

    def categories_in(self, root: Path) -> list[str]:
        """`mtd`, where there is a folder MT_Free."""
        return ["mtd"] if (root / FREE).is_dir() else []

    def list_category(self, category: str) -> list[Record]:
        """Records of the free tiles, those of the list included, and of all kinds of defect."""
        records = []
        for folder in folders_in(self.root):
            if folder.name.startswith("MT_") and folder.name != FREE:
                defect = folder.name.removeprefix("MT_").lower()
                masks = {mask.stem: mask for mask in _of_kind(folder, is_mask=True)}
                for image in _of_kind(folder, is_mask=False):
                    mask = masks.get(image.stem, image.with_suffix(".png"))
                    records.append(Record(image, mask, 1, "test", category, defect))
        masks = {mask.stem: mask for mask in _of_kind(self.root / FREE, is_mask=True)}
        listed = {self.root / FREE / "Imgs" / name for name in self.train_names or ()}
        for image in sorted(listed.union(_of_kind(self.root / FREE, is_mask=False))):
            split = self._split(image.name)
            records.append(Record(image, masks.get(image.stem), 0, split, category, GOOD))
        return records

    def list_masks(self, category: str) -> list[Path]:
        """All .png files, as images are .jpg."""
        return [mask for folder in folders_in(self.root) for mask in _of_kind(folder, is_mask=True)]

    @cached_property
    def train_names(self) -> frozenset[str] | None:
        """Names of the images to train on, or None where no list is at hand.

        Raises DataError naming the list when it does not exist or is empty.
        """
        file = self.train_list
        if file is None:
            nearby = [self.root / NAME_LIST, self.root.absolute().parent / NAME_LIST]
            file = next((path for path in nearby if path.is_file()), None)
        if file is None:
            return None
        if not file.is_file():
            raise DataError(f"MTD: there is no list of names {file} (data.train_list)")
        names = frozenset(file.read_text().split())
        if not names:
            raise DataError(f"MTD: the list of names {file} (data.train_list) is empty")
        return names

    def _split(self, name: str) -> Split:
        if self.train_names is not None:
            return "train" if name in self.train_names else "test"
        return "train" if name_share(name) < TRAIN_SHARE else "test"


def _of_kind(folder: Path, is_mask: bool) -> list[Path]:
    """The masks or the images of one kind of tile."""
    files = images_in(folder / "Imgs")
    return [file for file in files if (file.suffix.casefold() == ".png") == is_mask]
