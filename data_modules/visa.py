"""VisA: 12 objects (Zou, Jeong, Pemula, Zhang, Dabeer, ECCV 2022), downloaded or converted.

As downloaded, `split_csv/1cls.csv` says what trains, images end in .JPG and masks hold class ids.
The publisher's conversion gives MVTec AD's tree, in which images keep .JPG and masks are .png.
"""

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from data_modules.base import AnomalyDataModule
from data_modules.problems import DataError, WrongTreeError
from data_modules.reading.layout import file_below, has_train_or_test, train_test_records
from data_modules.reading.texts import read_table
from data_modules.reading.walk import folders_in, images_below
from data_modules.records import GOOD, Counts, Record, Split

SPLIT_FILE = Path("split_csv", "1cls.csv")
COLUMNS = ("object", "split", "label", "image", "mask")


class VisA(AnomalyDataModule):
    """VisA; `root` holds candle/, ... and split_csv/, or the converted candle/, ..."""

    tree = "<object>/Data/Images and split_csv/1cls.csv, or <object>/train/good, <object>/test/bad"
    mask_rule = "nonzero"
    published: ClassVar[dict[str, Counts]] = {
        "candle": Counts(900, 100, 100),
        "capsules": Counts(542, 60, 100),
        "cashew": Counts(450, 50, 100),
        "chewinggum": Counts(453, 50, 100),
        "fryum": Counts(450, 50, 100),
        "macaroni1": Counts(900, 100, 100),
        "macaroni2": Counts(900, 100, 100),
        "pcb1": Counts(904, 100, 100),
        "pcb2": Counts(901, 100, 100),
        "pcb3": Counts(905, 101, 100),
        "pcb4": Counts(904, 101, 100),
        "pipe_fryum": Counts(450, 50, 100),
    }

    def categories_in(self, root: Path) -> list[str]:
        """Objects of a downloaded or of a converted tree; an error if `root` mixes them."""
        folders = folders_in(root)
        raw = [folder.name for folder in folders if (folder / "Data").is_dir()]
        converted = [folder.name for folder in folders if has_train_or_test(folder)]
        if raw and converted:
            raise WrongTreeError(
                f"VisA: {root} (data.root) mixes the downloaded tree ({', '.join(raw)}) with the "
                f"converted one ({', '.join(converted)}): keep them in separate folders"
            )
        return raw or converted

    def list_category(self, category: str) -> list[Record]:
        """Records of one object, from the CSV file or from the converted tree."""
        if not (self.root / category / "Data").is_dir():
            return train_test_records(self.root / category, category)
        records = [self._record(row) for row in self._rows if row["object"] == category]
        if not records:
            raise DataError(f"VisA: {self.root / SPLIT_FILE} lists no images of {category}")
        return records

    def list_masks(self, category: str) -> list[Path]:
        """All images in the folders of masks of either tree."""
        folder = self.root / category
        return [*images_below(folder / "Data" / "Masks"), *images_below(folder / "ground_truth")]

    def _record(self, row: dict[str, str]) -> Record:
        source = f"VisA: {self.root / SPLIT_FILE}"
        for name, known in (("split", ("train", "test")), ("label", ("normal", "anomaly"))):
            if row[name] and row[name] not in known:
                raise DataError(
                    f"{source} has the {name} '{row[name]}' in the row of {row['image']}; "
                    f"expected {' or '.join(known)}"
                )
        needed = COLUMNS[:4] if row["label"] == "normal" else COLUMNS
        lacking = [name for name in needed if not row[name]]
        if lacking:
            raise DataError(
                f"{source} has no {', '.join(lacking)} in the row of "
                f"{row['image'] or row['object']}; expected {', '.join(needed)}"
            )
        image = file_below(self.root, row["image"], source)
        split: Split = "train" if row["split"] == "train" else "test"
        if row["label"] == "normal":
            return Record(image, None, 0, split, row["object"], GOOD)
        mask = file_below(self.root, row["mask"], source)
        return Record(image, mask, 1, split, row["object"], "bad")

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        path = self.root / SPLIT_FILE
        if not path.is_file():
            raise WrongTreeError(
                f"VisA: {path} is missing; the downloaded tree (data.root) comes with it"
            )
        columns, rows = read_table(path)
        if not set(COLUMNS) <= set(columns):
            raise DataError(f"VisA: {path} lacks columns; expected {', '.join(COLUMNS)}")
        return rows
