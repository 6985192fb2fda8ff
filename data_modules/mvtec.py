"""MVTec AD: 15 objects and textures (Bergmann, Fauser, Sattlegger, Steger, CVPR 2019).

Grid, screw and zipper are published as single-channel images; masks exist for defects only.
"""

from pathlib import Path
from typing import ClassVar

from data_modules.base import AnomalyDataModule
from data_modules.reading.layout import has_train_or_test, train_test_records
from data_modules.reading.walk import folders_in, images_below, inner_folder
from data_modules.records import Counts, Record


class MVTecAD(AnomalyDataModule):
    """MVTec AD; `root` holds bottle/, cable/, ... Any data set in the same tree is read as well."""

    tree = "<category>/train/good, <category>/test/<defect>, <category>/ground_truth/<defect>"
    published: ClassVar[dict[str, Counts]] = {
        "bottle": Counts(209, 20, 63),
        "cable": Counts(224, 58, 92),
        "capsule": Counts(219, 23, 109),
        "carpet": Counts(280, 28, 89),
        "grid": Counts(264, 21, 57),
        "hazelnut": Counts(391, 40, 70),
        "leather": Counts(245, 32, 92),
        "metal_nut": Counts(220, 22, 93),
        "pill": Counts(267, 26, 141),
        "screw": Counts(320, 41, 119),
        "tile": Counts(230, 33, 84),
        "toothbrush": Counts(60, 12, 30),
        "transistor": Counts(213, 60, 40),
        "wood": Counts(247, 19, 60),
        "zipper": Counts(240, 32, 119),
    }

    def categories_in(self, root: Path) -> list[str]:
        """Folders that have `train` or `test` in them."""
        return [folder.name for folder in folders_in(root) if has_train_or_test(folder)]

    def list_category(self, category: str) -> list[Record]:
        """Records of `<category>`, with a mask `NNN_mask.png` for each defective image."""
        return train_test_records(self.root / category, category)

    def list_masks(self, category: str) -> list[Path]:
        """All images below `<category>/ground_truth`."""
        return list(images_below(inner_folder(self.root / category, "ground_truth")))
