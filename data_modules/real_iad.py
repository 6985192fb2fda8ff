"""Real-IAD: 30 objects from five views (Wang, Zhu, Gao, Gan, Zhang, Gu, Qian, Chen, Ma, CVPR 2024).

Splits, labels and masks are listed in one JSON file per object. The images come at several sizes;
the largest one that is there is read.
"""

import json
from pathlib import Path
from typing import Any

from data_modules.base import AnomalyDataModule
from data_modules.problems import DataError
from data_modules.reading.layout import images_below
from data_modules.records import GOOD, Record, Split

LISTS = (Path("realiad_jsons", "realiad_jsons"), Path("realiad_jsons"))
IMAGES = (Path("realiad_1024"), Path("realiad_512"), Path("realiad_256"), Path())


class RealIAD(AnomalyDataModule):
    """Real-IAD; `root` holds realiad_1024/ (or _512/, _256/) and realiad_jsons/.

    The published lists themselves say how many images a category has.
    """

    tree = "realiad_1024/<object>/OK, realiad_1024/<object>/NG, realiad_jsons/<object>.json"

    def categories_in(self, root: Path) -> list[str]:
        """Objects that have both a list and a folder of images."""
        lists = next((root / lists for lists in LISTS if any((root / lists).glob("*.json"))), root)
        return sorted(
            path.stem
            for path in lists.glob("*.json")
            if any((root / images / path.stem).is_dir() for images in IMAGES)
        )

    def list_category(self, category: str) -> list[Record]:
        """Records of one object, from its JSON file."""
        path = self._list_file(category)
        try:
            content = json.loads(path.read_text())
            normal = content["meta"]["normal_class"]
            prefix = content["meta"].get("prefix") or category
            images = next(
                self.root / images / prefix
                for images in IMAGES
                if (self.root / images / category).is_dir()
            )
            records = []
            splits: tuple[Split, ...] = ("train", "test")
            for split in splits:
                for sample in content[split]:
                    records.append(_record(sample, images, normal, split, category))
            return records
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(
                f"Real-IAD: {path} is not a published list ({error!r}); expected `meta` with "
                "`normal_class`, and `train` and `test` with `image_path`, `mask_path` and "
                "`anomaly_class`"
            ) from error

    def list_masks(self, category: str) -> list[Path]:
        """All .png files among the images, which are .jpg."""
        folders = [self.root / images / category for images in IMAGES]
        files = images_below(next(folder for folder in folders if folder.is_dir()))
        return [file for file in files if file.suffix.casefold() == ".png"]

    def _list_file(self, category: str) -> Path:
        files = [self.root / lists / f"{category}.json" for lists in LISTS]
        return next((file for file in files if file.is_file()), files[0])


def _record(
    sample: dict[str, Any], images: Path, normal: str, split: Split, category: str
) -> Record:
    """One list entry; a specimen's five views share a folder."""
    image = images / sample["image_path"]
    specimen = Path(sample["image_path"]).parent.as_posix()
    if sample["anomaly_class"] == normal:
        return Record(image, None, 0, split, category, GOOD, specimen)
    mask = images / sample["mask_path"] if sample["mask_path"] else image.with_suffix(".png")
    return Record(image, mask, 1, split, category, sample["anomaly_class"], specimen)
