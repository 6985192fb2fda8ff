"""Synthetic textures: a data set that needs no download.

Normal images are crops of three real photographs that ship inside scikit-image. Training crops come
from the left and right parts of a photograph, test crops from the band between them, so no pixel is
in both. Defects of clearly different scale are pasted in the manner of DTD-Synthetic (Aota, Tong,
Okatani, WACV 2023): specks and scratches, blobs, and large missing or swapped parts. Nothing
changes outside a mask. The tree, in MVTec AD's layout, is written once and always the same.
"""

import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import skimage.data
from filelock import FileLock

from data_modules.mvtec import MVTecAD
from data_modules.reading.cache import user_cache_dir
from data_modules.reading.images import Pixels
from data_modules.records import Counts

VERSION = 1  # part of the default folder's name; raise it whenever other pixels would be written
SIDE = 128
TRAIN, GOOD, PER_DEFECT = 160, 20, 6
TEST_BAND = (180, 332)  # columns of the 512-pixel photographs that only test images show

Paste = tuple[Pixels, Pixels]  # what to see inside the shape, and the shape (0/1)


class SyntheticTextures(MVTecAD):
    """Brick, grass and gravel with pasted defects; `root` may be left out, the tree is written."""

    published: ClassVar[dict[str, Counts]] = {
        category: Counts(TRAIN, GOOD, 5 * PER_DEFECT) for category in ("brick", "grass", "gravel")
    }

    def locate(self, root: str) -> Path:
        """`root`, or a folder in the user's cache."""
        return Path(root).expanduser() if root else user_cache_dir() / f"synthetic-{VERSION}"

    @cached_property
    def categories(self) -> list[str]:
        """The chosen categories; writes the tree where there is none."""
        write_once(self.root)
        return super().categories


def write_once(root: Path) -> None:
    """Write the tree if `root` is missing or empty; processes that start together do it once."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if root.exists() and any(root.iterdir()):
            return
        partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        for number, category in enumerate(SyntheticTextures.published):
            _write_category(partial / category, category, number)
        partial.chmod(0o755)
        shutil.rmtree(root, ignore_errors=True)
        partial.rename(root)


def _write_category(folder: Path, category: str, number: int) -> None:
    photograph, others = _photograph(category), _other_photographs(category)

    def crop(generator: np.random.Generator, test: bool) -> Pixels:
        left, right = TEST_BAND
        ranges = [(left, right)] if test else [(0, left), (right, photograph.shape[1])]
        start, end = ranges[generator.integers(len(ranges))]
        x = generator.integers(start, end - SIDE + 1)
        y = generator.integers(photograph.shape[0] - SIDE + 1)
        return photograph[y : y + SIDE, x : x + SIDE]

    for part, count in (("train", TRAIN), ("test", GOOD)):
        for index in range(count):
            generator = np.random.default_rng([number, index, part == "test"])
            _write(folder / part / "good" / f"{index:03d}.png", crop(generator, part == "test"))
    for kind, (name, paste) in enumerate(DEFECTS.items()):
        for index in range(PER_DEFECT):
            generator = np.random.default_rng([number, index, 2 + kind])
            normal = crop(generator, test=True)
            image, shape = _blend(normal, *paste(normal, others, generator))
            _write(folder / "test" / name / f"{index:03d}.png", image)
            _write(folder / "ground_truth" / name / f"{index:03d}_mask.png", shape * 255)


def _photograph(category: str) -> Pixels:
    return getattr(skimage.data, category)()


def _other_photographs(category: str) -> list[Pixels]:
    return [_photograph(other) for other in SyntheticTextures.published if other != category]


def _blend(normal: Pixels, content: Pixels, shape: Pixels) -> Paste:
    """Content inside the shape, its edge softened inwards."""
    weight = cv2.GaussianBlur(shape.astype(np.float32), (3, 3), 0.7) * shape
    mixed = normal + weight * (content.astype(np.float32) - normal)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), shape


def paste_defect(normal: Pixels, category: str, generator: np.random.Generator) -> Paste:
    """A copy of any square RGB image with one defect of the recipe, and the defect's mask (0/1).

    The defect is as large, in proportion, as in a textured tile; content is never swapped in from
    the photograph that has the category's name.
    """
    side = len(normal)
    small = cv2.resize(normal, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    paste = list(DEFECTS.values())[generator.integers(len(DEFECTS))]
    drawn, shape = paste(small, _other_photographs(category), generator)
    content = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_AREA).astype(np.uint8)
    # Any overlap counts, so that a thin scratch does not vanish from a small image.
    covered = cv2.resize(shape.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA) > 0
    mask = covered.astype(np.uint8)
    per_channel = np.broadcast_to(content.reshape(side, side, -1), normal.shape)
    channels = [_blend(normal[..., i], per_channel[..., i], mask)[0] for i in range(3)]
    return np.stack(channels, axis=-1), mask


def _shifted(normal: Pixels, generator: np.random.Generator, amounts: tuple[int, int]) -> Pixels:
    """The texture itself, clearly darker or lighter."""
    sign = 1 if generator.random() < 0.5 else -1
    shift = sign * int(generator.integers(*amounts))
    return np.clip(normal.astype(int) + shift, 0, 255).astype(np.uint8)


def _outline(generator: np.random.Generator, radius: tuple[int, int]) -> Pixels:
    """An irregular filled shape."""
    reach = int(generator.integers(*radius))
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = sum(
        generator.uniform(0.05, 0.2) * np.sin(order * angles + generator.uniform(0, 2 * np.pi))
        for order in (1, 2, 3)
    )
    distance = reach * np.clip(1 + wobble, 0.4, 1.4)
    centre = generator.integers(int(reach * 1.2), SIDE - int(reach * 1.2), size=2)
    points = centre + distance[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shape = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(shape, [np.rint(points).astype(np.int32)], 1)
    return shape


def _specks(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    shape = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(generator.integers(2, 5)):
        x, y = generator.integers(8, SIDE - 8, size=2)
        cv2.circle(shape, (int(x), int(y)), int(generator.integers(2, 5)), 1, -1)
    return _shifted(normal, generator, (90, 130)), shape


def _scratch(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    shape = np.zeros((SIDE, SIDE), np.uint8)
    steps = generator.normal(0, 0.25, size=12).cumsum() + generator.uniform(0, 2 * np.pi)
    walk = 5 * np.stack([np.cos(steps), np.sin(steps)], axis=1).cumsum(axis=0)
    points = np.rint(walk - walk.mean(axis=0) + generator.integers(40, SIDE - 40, size=2))
    cv2.polylines(shape, [points.astype(np.int32)], False, 1, int(generator.integers(2, 4)))
    return _shifted(normal, generator, (90, 130)), shape


def _blob(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    stained = cv2.GaussianBlur(_shifted(normal, generator, (50, 80)), (0, 0), 2)
    return stained.astype(np.uint8), _outline(generator, (9, 16))


def _missing(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    noise = generator.normal(generator.integers(20, 60), 3, size=normal.shape)
    return np.clip(noise, 0, 255).astype(np.uint8), _outline(generator, (22, 34))


def _swapped(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    other = others[generator.integers(len(others))]
    y, x = generator.integers(other.shape[0] - SIDE + 1, size=2)
    return other[y : y + SIDE, x : x + SIDE], _outline(generator, (22, 34))


DEFECTS: dict[str, Callable[[Pixels, list[Pixels], np.random.Generator], Paste]] = {
    "specks": _specks,
    "scratch": _scratch,
    "blob": _blob,
    "missing": _missing,
    "swapped": _swapped,
}


def _write(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f"{path} could not be written")
