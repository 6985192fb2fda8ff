"""MVTec LOCO: structural and logical anomalies in five scenes.

Bergmann, Batzner, Fauser, Sattlegger, Steger, IJCV 2022. An image has a folder of masks, one for
each of its anomalies, whose values name the kind of defect; their union is the mask.
`validation/good` holds normal images that are not to train.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from data_modules.mvtec import MVTecAD
from data_modules.reading.layout import normal_records, train_test_records
from data_modules.reading.walk import images_in, inner_folder
from data_modules.records import Counts, Record

VALIDATION = "validation"


class MVTecLOCO(MVTecAD):
    """MVTec LOCO; the published validation images take the place of `val_fraction`."""

    tree = "<category>/train/good, <category>/validation/good, <category>/test/logical_anomalies"
    mask_rule = "nonzero"
    published: ClassVar[dict[str, Counts]] = {  # train with validation
        "breakfast_box": Counts(351 + 62, 102, 90 + 83),
        "juice_bottle": Counts(335 + 54, 94, 94 + 142),
        "pushpins": Counts(372 + 69, 138, 81 + 91),
        "screw_bag": Counts(360 + 60, 122, 82 + 137),
        "splicing_connectors": Counts(354 + 59, 119, 85 + 108),
    }

    def list_category(self, category: str) -> list[Record]:
        """Records of one category; validation images are among the training ones."""
        folder = self.root / category
        validation = normal_records(
            images_in(inner_folder(inner_folder(folder, VALIDATION), "good")), "train", category
        )
        return train_test_records(folder, category, folders_of_masks) + validation

    def is_held_out(self, records: Sequence[Record]) -> list[bool]:
        """The published validation images; by name only where there are none."""
        held_out = [record.image.parent.parent.name == VALIDATION for record in records]
        return held_out if any(held_out) else super().is_held_out(records)


def folders_of_masks(images: list[Path], folder: Path) -> list[tuple[Path, ...]]:
    """All masks in the folder named like each image, or where its first one would have to be."""
    return [
        tuple(images_in(folder / image.stem)) or (folder / image.stem / "000.png",)
        for image in images
    ]
