"""Magnetic-tile defects (Huang, Qiu, Yuan, The Visual Computer 2020).

Images and masks of one kind of defect share a folder and differ in their endings. Sizes and aspect
ratios vary; masks have grey values along edges. The authors publish no split: the literature trains
on 80 % of the defect-free photographs, on a list of 761 names that goes back to DifferNet, and so
tests on good tiles that it trained on (`mtd_tiles.py`).
"""

from collections.abc import Container
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_modules.base import AnomalyDataModule
from data_modules.mtd_tiles import tiles_of, tiles_to_test
from data_modules.problems import DataError
from data_modules.reading.layout import file_below
from data_modules.reading.texts import read_text
from data_modules.reading.walk import folders_in, images_in
from data_modules.records import GOOD, Counts, Record, Split

NAME_LIST = "mtd_train_filenames.txt"
FREE = "MT_Free"


class MTD(AnomalyDataModule):
    """Magnetic tiles; `root` holds MT_Free/, MT_Blowhole/, ... The only category is `mtd`.

    Args:
        root: Folder that holds the data set as its publisher ships it.
        train_list: File with the names of the defect-free images that the `published` split trains
            on, one a line; `mtd_train_filenames.txt` in or beside `root` if not given.
        split: `published`: by that list, which puts photographs of nearly all good test tiles into
            training; `tiles`: all photographs of a tile on one side, as many on each as published.
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
        split: Literal["published", "tiles"] = "published",
        **settings: Any,
    ) -> None:
        super().__init__(root, **settings)
        if split == "tiles" and train_list:
            raise DataError(
                "MTD: data.train_list belongs to the published split; leave it out, or set "
                "data.split to published"
            )
        self.split = split
        self.train_list = Path(train_list).expanduser() if train_list else None

    def categories_in(self, root: Path) -> list[str]:
        """`mtd`, where there is a folder MT_Free."""
        return ["mtd"] if (root / FREE).is_dir() else []

    def list_category(self, category: str) -> list[Record]:
        """Records of the free tiles, those of the list included, and of all kinds of defect."""
        images = [image for folder in folders_in(self.root) for image in _of_kind(folder, False)]
        if self.split == "published":
            source = f"MTD: the list of names {self.train_list or NAME_LIST}"
            folder = self.root / FREE / "Imgs"
            images = sorted(
                {*images, *(file_below(folder, name, source) for name in self.train_names)}
            )
        tiles = tiles_of([image.stem for image in images])
        trains = self._trains(images, tiles)
        masks = {mask.with_suffix(""): mask for mask in self.list_masks(category)}
        records = []
        for image in images:
            mask, tile = masks.get(image.with_suffix("")), tiles[image.stem]
            if _is_free(image):
                split: Split = "train" if image.name in trains else "test"
                records.append(Record(image, mask, 0, split, category, GOOD, tile))
            else:
                defect = image.parent.parent.name.removeprefix("MT_").lower()
                mask = mask or image.with_suffix(".png")
                records.append(Record(image, mask, 1, "test", category, defect, tile))
        return records

    def folders_of(self, category: str) -> list[Path]:
        """All folders of tiles."""
        return [folder for folder in folders_in(self.root) if folder.name.startswith("MT_")]

    def list_masks(self, category: str) -> list[Path]:
        """All .png files, as images are .jpg."""
        return [mask for folder in folders_in(self.root) for mask in _of_kind(folder, is_mask=True)]

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the numbers that come out of this data, as JSON values."""
        return {**super().fingerprint_fields(), "split": self.split}

    @cached_property
    def train_names(self) -> frozenset[str]:
        """Names of the images that the published split trains on.

        Raises DataError naming the list when it does not exist or is empty.
        """
        nearby = [self.root / NAME_LIST, self.root.absolute().parent / NAME_LIST]
        file = self.train_list or next((path for path in nearby if path.is_file()), None)
        if file is None:
            raise DataError(
                f"MTD: the published split needs its list of names, and there is no {NAME_LIST} in "
                f"or beside {self.root} (data.train_list); data.split=tiles needs none"
            )
        if not file.is_file():
            raise DataError(f"MTD: there is no list of names {file} (data.train_list)")
        names = frozenset(read_text(file).split())
        if not names:
            raise DataError(f"MTD: the list of names {file} (data.train_list) is empty")
        return names

    def _trains(self, images: list[Path], tiles: dict[str, str]) -> Container[str]:
        """Names of the free images to train on."""
        if self.split == "published":
            return self.train_names
        free = {image.stem: tiles[image.stem] for image in images if _is_free(image)}
        tested = tiles_to_test(free, {tiles[i.stem] for i in images if not _is_free(i)})
        return {image.name for image in images if tiles[image.stem] not in tested}


def _is_free(image: Path) -> bool:
    return image.parent.parent.name == FREE


def _of_kind(folder: Path, is_mask: bool) -> list[Path]:
    """The masks or the images of one kind of tile; none of another folder."""
    files = images_in(folder / "Imgs") if folder.name.startswith("MT_") else []
    return [file for file in files if (file.suffix.casefold() == ".png") == is_mask]
