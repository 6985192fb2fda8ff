"""Listing of files: folders, images, and the tree that most data sets share.

`<category>/train/good`, `<category>/test/<defect or good>`, `<category>/ground_truth/<defect>`.
"""

import ntpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath

from data_modules.problems import DataError, WrongTreeError
from data_modules.reading.walk import folders_in, images_in, inner_folder
from data_modules.records import GOOD, Record, Split

NORMAL_FOLDERS = ("good", "ok", "normal")


def holds_normal(folder: Path) -> bool:
    """Whether a folder's name says that its images are normal, in upper or lower case."""
    return folder.name.casefold() in NORMAL_FOLDERS


def looks_normal(name: str) -> bool:
    """Whether a folder's name speaks of normal images though it is none of `NORMAL_FOLDERS`."""
    words = set(re.findall("[a-z]+", name.casefold()))
    return bool(words.intersection(NORMAL_FOLDERS)) and not words & {"no", "non", "not"}


def file_below(root: Path, name: str, source: str) -> Path:
    """The file that a list names; DataError if it would lie outside of `root`."""
    inside = PureWindowsPath(ntpath.normpath(name))  # understands both kinds of slashes
    if inside.anchor or inside.parts[:1] == ("..",) or "\0" in name:
        raise DataError(f"{source} names {name!r}, which is not below {root}")
    return root / name


def pair_masks(images: list[Path], folder: Path, in_order: bool = False) -> list[Path]:
    """The mask of each image: same stem, or stem + `_mask`; else where it would have to be.

    With `in_order`, masks none of which bears an image's name are paired by their sorted order if
    there are as many as images.
    """
    masks = images_in(folder)
    by_stem = {mask.stem.casefold(): mask for mask in masks} | {mask.stem: mask for mask in masks}
    found = [
        next((by_stem[name] for name in _names_of_mask(image.stem) if name in by_stem), None)
        for image in images
    ]
    if in_order and not any(found) and len(masks) == len(images):
        return masks
    ending = "_mask.png" if any(stem.endswith("_mask") for stem in by_stem) else ".png"
    return [
        mask or folder / f"{image.stem}{ending}" for image, mask in zip(images, found, strict=True)
    ]


def _names_of_mask(stem: str) -> tuple[str, ...]:
    return stem, f"{stem}_mask", stem.casefold(), f"{stem}_mask".casefold()


def has_train_or_test(folder: Path) -> bool:
    """Whether a folder looks like a category of the shared tree."""
    return any(inner_folder(folder, name).is_dir() for name in ("train", "test"))


Pairing = Callable[[list[Path], Path], Iterable[Path | tuple[Path, ...]]]


def train_test_records(folder: Path, category: str, pairing: Pairing = pair_masks) -> list[Record]:
    """Records of one category in the shared tree; `pairing` finds the masks of defective images."""
    records = []
    for train in filter(holds_normal, folders_in(inner_folder(folder, "train"))):
        records += normal_records(images_in(train), "train", category)
    for test in folders_in(inner_folder(folder, "test")):
        images = images_in(test)
        truth = inner_folder(inner_folder(folder, "ground_truth"), test.name)
        if holds_normal(test):
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
