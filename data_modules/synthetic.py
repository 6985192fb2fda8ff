"""Synthetic textures: a data set that needs no download.

Normal images are crops of three real photographs that ship inside scikit-image. Training crops come
from the left and right parts of a photograph, test crops from the band between them, so no pixel is
in both. Defects are pasted by the recipe of `data_modules.defects`. The tree, in MVTec AD's layout,
is written once and always the same.
"""

from functools import cached_property
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from data_modules.defects import DEFECTS, PHOTOGRAPHS, SIDE, blend, other_photographs, photograph
from data_modules.mvtec import MVTecAD
from data_modules.reading.cache import user_cache_dir
from data_modules.reading.images import Pixels
from data_modules.reading.store import write_once
from data_modules.records import Counts

VERSION = 1  # part of the default folder's name; raise it whenever other pixels would be written
TRAIN, GOOD, PER_DEFECT = 160, 20, 6
TEST_BAND = (180, 332)  # columns of the 512-pixel photographs that only test images show


class SyntheticTextures(MVTecAD):
    """Brick, grass and gravel with pasted defects; `root` may be left out, the tree is written."""

    published: ClassVar[dict[str, Counts]] = {
        category: Counts(TRAIN, GOOD, 5 * PER_DEFECT) for category in PHOTOGRAPHS
    }

    def locate(self, root: str) -> Path:
        """`root`, or a folder in the user's cache."""
        return Path(root).expanduser() if root else user_cache_dir() / f"synthetic-{VERSION}"

    @cached_property
    def categories(self) -> list[str]:
        """The chosen categories; writes the tree where there is none."""
        write_tree(self.root)
        return super().categories


def write_tree(root: Path) -> None:
    """Write the tree if `root` is missing or empty; processes that start together do it once."""
    write_once(root.absolute(), lambda: root.exists() and any(root.iterdir()), _write_categories)


def _write_categories(root: Path) -> None:
    for number, category in enumerate(PHOTOGRAPHS):
        _write_category(root / category, category, number)


def _write_category(folder: Path, category: str, number: int) -> None:
    whole, others = photograph(category), other_photographs(category)

    def crop(generator: np.random.Generator, test: bool) -> Pixels:
        left, right = TEST_BAND
        ranges = [(left, right)] if test else [(0, left), (right, whole.shape[1])]
        start, end = ranges[generator.integers(len(ranges))]
        x = generator.integers(start, end - SIDE + 1)
        y = generator.integers(whole.shape[0] - SIDE + 1)
        return whole[y : y + SIDE, x : x + SIDE]

    for part, count in (("train", TRAIN), ("test", GOOD)):
        for index in range(count):
            generator = np.random.default_rng([number, index, part == "test"])
            _write(folder / part / "good" / f"{index:03d}.png", crop(generator, part == "test"))
    for kind, (name, paste) in enumerate(DEFECTS.items()):
        for index in range(PER_DEFECT):
            generator = np.random.default_rng([number, index, 2 + kind])
            normal = crop(generator, test=True)
            image, shape = blend(normal, *paste(normal, others, generator))
            _write(folder / "test" / name / f"{index:03d}.png", image)
            _write(folder / "ground_truth" / name / f"{index:03d}_mask.png", shape * 255)


def _write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path} could not be written")
