"""Listing of files: folders, images, and the tree that most data sets share.

`<category>/train/good`, `<category>/test/<defect or good>`, `<category>/ground_truth/<defect>`.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data_modules.problems import WrongTreeError
from data_modules.reading.images import IMAGE_SUFFIXES
from data_modules.records import GOOD, Record, Split

NORMAL_FOLDERS = ("good", "ok", "normal")


def is_image(name: str) -> bool:
    """Whether a file name is an image's, in upper or lower case."""
    return os.path.splitext(name)[1].casefold() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122


def images_in(folder: Path) -> list[Path]:
    """Images directly in a folder, sorted; none when the folder does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [
            folder / name
            for name in sorted(e.name for e in entries if is_image(e.name) and not e.is_dir())
        ]


def images_below(folder: Path) -> Iterator[Path]:
    """Images in a folder and in all folders below it, sorted within each."""
    yield from images_in(folder)
    for inner in folders_in(folder):
        yield from images_below(inner)


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted, without hidden ones."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    return [folder / name for name in names]


def pair_masks(images: list[Path], folder: Path, in_order: bool = False) -> list[Path]:
    """The mask of each image: same stem, or stem + `_mask`; else where it would have to be.

    With `in_order`, masks none of which bears an image's name are paired by their sorted order if
    there are as many as images.
    """
    masks = images_in(folder)
    by_stem = {mask.stem: mask for mask in masks}
    found = [by_stem.get(image.stem) or by_stem.get(f"{image.stem}_mask") for image in images]
    if in_order and not any(found) and len(masks) == len(images):
        return masks
    ending = "_mask.png" if any(stem.endswith("_mask") for stem in by_stem) else ".png"
    return [
        mask or folder / f"{image.stem}{ending}" for image, mask in zip(images, found, strict=True)
    ]


def has_train_or_test(folder: Path) -> bool:
    """Whether a folder looks like a category of the shared tree."""
    return (folder / "train").is_dir() or (folder / "test").is_dir()


Pairing = Callable[[list[Path], Path], Iterable[Path | tuple[Path, ...]]]


def train_test_records(folder: Path, category: str, pairing: Pairing = pair_masks) -> list[Record]:
    """Records of one category in the shared tree; `pairing` finds the masks of defective images."""
    records = []
    for train in folders_in(folder / "train"):
        if train.name in NORMAL_FOLDERS:
            records += normal_records(images_in(train), "train", category)
    for test in folders_in(folder / "test"):
        images = images_in(test)
        truth = folder / "ground_truth" / test.name
        if test.name in NORMAL_FOLDERS:
            records += normal_records(images, "test", category, truth)
        else:
            masks = pairing(images, truth)
            records += [
                Record(image, mask, 1, "test", category, test.name)
                for image, mask in zip(images, masks, strict=True)
            ]
    return records


def normal_records(
    images: Iterable[Path], split: Split, category: str, masks: Path | None = None
) -> list[Record]:
    """Records of images without a defect; some copies ship a folder of black masks for them."""
    black = {mask.stem.removesuffix("_mask"): mask for mask in images_in(masks)} if masks else {}
    return [Record(image, black.get(image.stem), 0, split, category, GOOD) for image in images]


def find_categories(
    root: Path, categories_in: Callable[[Path], list[str]], name: str, tree: str
) -> list[str]:
    """Categories in a root, or a WrongTreeError that says which folder looks right instead."""
    if not root.is_dir():
        raise WrongTreeError(f"{name}: there is no folder {root} (data.root); expected {tree}")
    categories = categories_in(root)
    if categories:
        return categories
    if not any(root.iterdir()):
        raise WrongTreeError(f"{name}: the folder {root} (data.root) is empty; expected {tree}")
    hint = right_folder(root, lambda folder: bool(categories_in(folder)))
    raise WrongTreeError(
        f"{name}: {root} (data.root) does not hold the data set; expected {tree}.{hint}"
    )


def right_folder(root: Path, looks_right: Callable[[Path], bool]) -> str:
    """A sentence that names the folder meant, when root is a level or two too high or too low."""
    inner = folders_in(root)[:100]
    below = [*inner, *(deeper for folder in inner for deeper in folders_in(folder)[:100])]
    for side, folders in (("below", below), ("above", root.resolve().parents[:5])):
        for folder in folders:
            if looks_right(folder):
                return f" The folder {folder}, {side} it, looks right: use that as data.root."
    return ""
