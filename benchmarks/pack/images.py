"""Data sets at the size in use, in their published trees."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from benchmarks.pack.problems import PackError
from data_modules import MTD, AnomalyDataModule, MVTecAD
from data_modules.mtd import NAME_LIST
from data_modules.problems import DataError
from data_modules.records import Record

SUFFIX = ".webp"  # two decibels better than JPEG of the same size, and read by OpenCV as well
QUALITY = 90


DATA = ("mvtec", "mtd")


def open_data(name: str, categories: list[str], root: Path | None) -> AnomalyDataModule:
    """A data set, its files listed; PackError if it does not lie where it is said to."""
    variable = f"{name.upper()}_ROOT"
    folder = str(root / name) if root else os.environ.get(variable, f"data/{name}")
    data = MVTecAD(root=folder, category=categories) if name == "mvtec" else MTD(root=folder)
    try:
        data.records()
    except DataError as error:
        raise PackError(f"{error}\nGive --root, or set {variable}") from error
    return data


def write(data: AnomalyDataModule, folder: Path, px: int) -> None:
    """Write every image of a data set at ``px`` pixels, and the masks of defective ones."""

    decoding = replace(data.decoding, size=px)

    def shrink(record: Record) -> None:
        image, mask = decoding(record)
        place = folder / record.image.relative_to(data.root)
        _save(place.with_suffix(SUFFIX), image[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
        if record.label and record.masks:
            mask_place = folder / record.masks[0].relative_to(data.root)
            _save(mask_place.with_suffix(".png"), mask * np.uint8(255), [])

    with ThreadPoolExecutor() as pool:
        list(pool.map(shrink, data.records()))
    if isinstance(data, MTD):
        names = sorted(Path(name).with_suffix(SUFFIX).name for name in data.train_names)
        (folder / NAME_LIST).write_text("\n".join(names) + "\n", encoding="utf-8")


def _save(place: Path, pixels: np.ndarray, options: list[int]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    _, encoded = cv2.imencode(place.suffix, pixels, options)
    place.write_bytes(encoded.tobytes())
