"""DTD-Synthetic: 12 textures with pasted defects (Aota, Tong, Okatani, WACV 2023).

The tree is MVTec AD's, but copies differ in how masks and the folders of defects are named.
"""

from pathlib import Path
from typing import ClassVar

from data_modules.mvtec import MVTecAD
from data_modules.reading.layout import pair_masks, train_test_records
from data_modules.reading.walk import folders_in, images_in
from data_modules.records import Counts, Record


class DTDSynthetic(MVTecAD):
    """DTD-Synthetic; `root` holds Blotchy_099/, Fibrous_183/, ..., each in MVTec AD's tree."""

    published: ClassVar[dict[str, Counts]] = {}  # only totals are published

    def list_category(self, category: str) -> list[Record]:
        """Records of one texture; masks are found by name, else by their sorted order."""
        return train_test_records(self.root / category, category, tolerant_masks)


def tolerant_masks(images: list[Path], folder: Path) -> list[Path]:
    """Masks of the images, also where the only folder of masks is not named like the defect."""
    if not folder.is_dir():
        others = folders_in(folder.parent)
        if images_in(folder.parent) and not others:
            folder = folder.parent
        elif len(others) == 1:
            folder = others[0]
    return pair_masks(images, folder, in_order=True)
