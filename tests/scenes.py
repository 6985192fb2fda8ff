"""Photographs as cameras in production take them, made of published ones: tall, and large.

Both makers write `Folder`'s tree. Nothing of what tests was trained on: of the magnetic tiles, all
photographs of one tile are on one side; of the screws, the published split stays.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_modules.mtd_tiles import tiles_of
from tests.fakes import write

STRIP = (320, 224)
"""Height and width of what is taken of a magnetic tile, in its own resolution."""
SCENE, SCREW, SCREWS = 1280, 160, 9
"""Sides in pixels of a scene and of a screw in it, and how many there are."""

Pair = tuple[np.ndarray, np.ndarray]


def write_tall(root: Path, mtd: Path, train: int, good: int, bad: int, seed: int = 0) -> Path:
    """Strips of three magnetic tiles above each other, 960 x 224, of which one may be defective."""
    generator = np.random.default_rng(seed)
    free = [file for file in sorted((mtd / "MT_Free/Imgs").glob("*.jpg")) if _large(file)]
    tiles = tiles_of([file.stem for file in free])
    groups = sorted(set(tiles.values()))
    training = set(groups[: len(groups) * 2 // 3])
    own = [file for file in free if tiles[file.stem] in training]
    others = [file for file in free if tiles[file.stem] not in training]
    defective = [
        file
        for kind in ("Blowhole", "Crack", "Break")
        for file in sorted((mtd / f"MT_{kind}/Imgs").glob("*.jpg"))
        if _large(file) and _cut(file.with_suffix(".png"), mask=True).any()
    ]
    parts = Parts(own, others, defective)
    return _write(root, parts, _stacked, generator, (train, good, bad))


class Parts(NamedTuple):
    """Photographs to make others of: normal ones to train and to test on, and defective ones."""

    own: Sequence[Path]
    others: Sequence[Path]
    defective: Sequence[Path]


def _write(
    root: Path,
    parts: Parts,
    make: Callable[..., Pair],
    generator: np.random.Generator,
    numbers: tuple[int, int, int],
) -> Path:
    """Write so many training, good and defective images, each as ``make`` makes it."""
    train, good, bad = numbers
    for number in range(train):
        write(root / f"train/good/{number:03d}.png", make(generator, parts.own)[0])
    for number in range(good):
        write(root / f"test/good/{number:03d}.png", make(generator, parts.others)[0])
    for number in range(bad):
        file = parts.defective[generator.integers(len(parts.defective))]
        image, mask = make(generator, parts.others, file)
        write(root / f"test/defect/{number:03d}.png", image)
        write(root / f"ground_truth/defect/{number:03d}.png", 255 * mask)
    return root


def _large(file: Path) -> bool:
    height, width = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).shape
    return height >= STRIP[0] and width >= STRIP[1]


def _cut(file: Path, mask: bool = False) -> np.ndarray:
    """The middle of a photograph, or of a mask as 0 and 1."""
    pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    top, left = ((side - wanted) // 2 for side, wanted in zip(pixels.shape, STRIP, strict=True))
    cut = pixels[top : top + STRIP[0], left : left + STRIP[1]]
    return (cut > 127).astype(np.uint8) if mask else cut


def _stacked(generator: np.random.Generator, good: Sequence[Path], bad: Path | None = None) -> Pair:
    files = [good[index] for index in generator.choice(len(good), 3, replace=False)]
    masks = [np.zeros(STRIP, np.uint8) for _ in files]
    if bad is not None:
        place = generator.integers(3)
        files[place], masks[place] = bad, _cut(bad.with_suffix(".png"), mask=True)
    return np.vstack([_cut(file) for file in files]), np.vstack(masks)


def write_scenes(root: Path, screw: Path, train: int, good: int, bad: int, seed: int = 0) -> Path:
    """Nine small screws on grey, 1,280 x 1,280, of which one may be defective."""
    generator = np.random.default_rng(seed)
    own, others = (sorted((screw / part / "good").glob("*.png")) for part in ("train", "test"))
    defective = sorted(
        file for file in (screw / "test").glob("*/*.png") if file.parent.name != "good"
    )
    parts = Parts(own, others, defective)
    return _write(root, parts, _scene, generator, (train, good, bad))


def _scene(generator: np.random.Generator, good: Sequence[Path], bad: Path | None = None) -> Pair:
    files = [good[index] for index in generator.choice(len(good), SCREWS, replace=False)]
    image = np.clip(generator.normal(200, 3, (SCENE, SCENE)), 0, 255).astype(np.uint8)
    mask = np.zeros_like(image)
    if bad is not None:
        files[0] = bad
    cells = generator.permutation(16)[:SCREWS]
    cell = SCENE // 4
    for number, (file, place) in enumerate(zip(files, cells, strict=True)):
        top, left = (
            cell * index + generator.integers(cell - SCREW) for index in divmod(int(place), 4)
        )
        here = np.s_[top : top + SCREW, left : left + SCREW]
        small = _small(file)
        # A screw is darker than what it lies on, whose brightness becomes the scene's.
        image[here] = np.minimum(image[here], np.clip(small + 200.0 - np.median(small), 0, 255))
        if number == 0 and bad is not None:
            drawn = bad.parents[2] / "ground_truth" / bad.parent.name / f"{bad.stem}_mask.png"
            mask[here] = _small(drawn) > 127
    return image, mask


def _small(file: Path) -> np.ndarray:
    pixels = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    return cv2.resize(pixels, (SCREW, SCREW), interpolation=cv2.INTER_AREA)
