"""Real-IAD: 30 objects from five views (Wang, Zhu, Gao, Gan, Zhang, Gu, Qian, Chen, Ma, CVPR 2024).

Splits, labels and masks are listed in one JSON file per object. The images come at several sizes;
the largest one that is there is read.
"""

from pathlib import Path
from typing import Any

from data_modules.base import AnomalyDataModule
from data_modules.problems import DataError
from data_modules.reading.layout import file_below
from data_modules.reading.texts import read_json
from data_modules.reading.walk import images_below
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
        source = f"Real-IAD: {path}"
        content = read_json(path)
        try:
            normal = content["meta"]["normal_class"]
            prefix = content["meta"].get("prefix") or category
            largest = next(
                self.root / images for images in IMAGES if (self.root / images / category).is_dir()
            )
            folder = file_below(largest, prefix, source)

            def record(sample: dict[str, Any], split: Split) -> Record:
                image = file_below(folder, sample["image_path"], source)
                specimen = Path(sample["image_path"]).parent.as_posix()  # of its five views
                kind = sample["anomaly_class"]
                if kind == normal:
                    return Record(image, None, 0, split, category, GOOD, specimen)
                mask = sample["mask_path"]
                marked = file_below(folder, mask, source) if mask else image.with_suffix(".png")
                return Record(image, marked, 1, split, category, kind, specimen)

            splits: tuple[Split, ...] = ("train", "test")
            return [record(sample, split) for split in splits for sample in content[split]]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{source} is not a published list ({error!r}); expected `meta` with "
                "`normal_class`, and `train` and `test` with `image_path`, `mask_path` and "
                "`anomaly_class`"
            ) from error

    def folders_of(self, category: str) -> list[Path]:
        """The folder of the largest images."""
        folders = [self.root / images / category for images in IMAGES]
        return [next(folder for folder in folders if folder.is_dir())]

    def list_masks(self, category: str) -> list[Path]:
        """All .png files among the images, which are .jpg."""
        files = images_below(self.folders_of(category)[0])
        return [file for file in files if file.suffix.casefold() == ".png"]

    def _list_file(self, category: str) -> Path:
        files = [self.root / lists / f"{category}.json" for lists in LISTS]
        return next((file for file in files if file.is_file()), files[0])
