"""Writes each data set's published layout in small, with the traps people lose days to.

Images are smooth coloured textures with a bright square where the defect is; masks are exact.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

import data_modules as sets

VISA_COLUMNS = ("object", "split", "label", "image", "mask")


def texture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth coloured waves, uint8 (height, width, 3) in OpenCV's channel order."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    waves = [np.sin(x + p) + np.cos(y + q) for p, q in generator.uniform(0, 0.6, size=(3, 2))]
    noise = generator.normal(0, 2, size=(height, width, 3))
    return np.clip(120 + 30 * np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def defective(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A texture with a square of a quarter of its side, and the square's mask (0/1)."""
    image = texture(seed, height, width)
    side = max(4, min(height, width) // 4)
    generator = np.random.default_rng([seed, 1])
    top, left = generator.integers(0, height - side), generator.integers(0, width - side)
    mask = np.zeros((height, width), np.uint8)
    mask[top : top + side, left : left + side] = 1
    image[mask == 1] = (20, 240, 250)
    return image, mask


def write(path: Path, pixels: np.ndarray) -> Path:
    """Write an image, whatever the case of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, data = cv2.imencode(path.suffix.lower(), pixels)
    assert encoded
    path.write_bytes(data.tobytes())
    return path


def gray(pixels: np.ndarray) -> np.ndarray:
    """Single-channel version of an image."""
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def write_mvtec(
    root: Path,
    categories: tuple[str, ...] = ("bottle", "grid"),
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
) -> Path:
    """MVTec AD: stems repeat in every folder; grid, screw and zipper are single-channel."""
    for number, category in enumerate(categories):
        single = category in ("grid", "screw", "zipper")
        folder = root / category
        for part, count in (("train/good", train), ("test/good", good)):
            for index in range(count):
                image = texture(1000 * number + 100 * len(part) + index, size, size)
                write(folder / part / f"{index:03d}.png", gray(image) if single else image)
        for index in range(bad):
            image, mask = defective(1000 * number + 500 + index, size, size)
            defect = ("broken", "contamination")[index % 2]
            name = f"{index // 2:03d}"
            write(folder / "test" / defect / f"{name}.png", gray(image) if single else image)
            write(folder / "ground_truth" / defect / f"{name}_mask.png", mask * 255)
    return root


def write_mtd(root: Path, train: int = 8, good: int = 3, bad: int = 1, size: int = 40) -> Path:
    """Magnetic tiles: `bad` of each kind, masks beside the images, sizes and ratios vary.

    Two photographs of each good tile. Writes the list of training names beside the root.
    """
    kinds = ("Blowhole", "Break", "Crack", "Fray", "Uneven")
    names = []
    for index in range(train + good):
        shape = (size + 7 * (index % 4), size + 5 * (index % 3))
        name = f"exp{index % 2 + 1}_num_{1000 + 1000 * (index // 2) + 37 * (index % 2)}"
        write(root / "MT_Free" / "Imgs" / f"{name}.jpg", gray(texture(index, *shape)))
        write(root / "MT_Free" / "Imgs" / f"{name}.png", np.zeros(shape, np.uint8))
        if index < train:
            names.append(f"{name}.jpg")
    for number, kind in enumerate(kinds):
        for index in range(bad):
            image, mask = defective(100 * number + index, size + 9 * number, size + 4 * index)
            name = f"exp1_num_{900_000 + 100 * number + index}"
            write(root / f"MT_{kind}" / "Imgs" / f"{name}.jpg", gray(image))
            write(root / f"MT_{kind}" / "Imgs" / f"{name}.png", with_grey_edge(mask))
    (root.parent / "mtd_train_filenames.txt").write_text("\n".join(names) + "\n")
    return root


def with_grey_edge(mask: np.ndarray) -> np.ndarray:
    """A 0/255 mask with a rim of small grey values, as lossy editing leaves it."""
    rim = cv2.dilate(mask, np.ones((3, 3), np.uint8)) - mask
    return mask * 255 + rim * 9


def write_folder(
    root: Path,
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
    masks: bool = True,
) -> Path:
    """Somebody's own images: train/good, test/<defect>, and ground_truth if there are `masks`."""
    for part, count in (("train/good", train), ("test/good", good)):
        for index in range(count):
            write(root / part / f"part-{index}.jpg", texture(100 * len(part) + index, size, size))
    for index in range(bad):
        image, mask = defective(500 + index, size, size)
        write(root / "test" / "dent" / f"part-{index}.JPG", image)
        if masks:
            write(root / "ground_truth" / "dent" / f"part-{index}.png", mask * 255)
    return root


def write_visa_raw(
    root: Path,
    categories: tuple[str, ...] = ("candle", "pcb1"),
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
) -> Path:
    """VisA as downloaded: upper-case .JPG, masks of class ids, the split in a CSV file."""
    rows = []
    for number, category in enumerate(categories):
        data = Path(category) / "Data"
        for index in range(train + good):
            image = data / "Images" / "Normal" / f"{index:04d}.JPG"
            write(root / image, texture(1000 * number + index, size, size + 8))
            split = "train" if index < train else "test"
            rows.append((category, split, "normal", image.as_posix(), ""))
        for index in range(bad):
            pixels, mask = defective(1000 * number + 500 + index, size, size + 8)
            image = data / "Images" / "Anomaly" / f"{index:03d}.JPG"
            mask_path = data / "Masks" / "Anomaly" / f"{index:03d}.png"
            write(root / image, pixels)
            write(root / mask_path, mask * (1 + index % 3))
            rows.append((category, "test", "anomaly", image.as_posix(), mask_path.as_posix()))
        for extra in ("image_anno.csv",):
            (root / category / extra).write_text("image,label,mask\n")
    (root / "split_csv").mkdir(exist_ok=True)
    with (root / "split_csv" / "1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([VISA_COLUMNS, *rows])
    return root


def write_visa_converted(
    root: Path,
    categories: tuple[str, ...] = ("candle", "pcb1"),
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
) -> Path:
    """VisA after the publisher's own conversion: MVTec's tree, but the images keep .JPG."""
    for number, category in enumerate(categories):
        for index in range(train + good):
            part = "train" if index < train else "test"
            image = texture(1000 * number + index, size, size + 8)
            write(root / category / part / "good" / f"{index:04d}.JPG", image)
        for index in range(bad):
            image, mask = defective(1000 * number + 500 + index, size, size + 8)
            write(root / category / "test" / "bad" / f"{index:03d}.JPG", image)
            write(root / category / "ground_truth" / "bad" / f"{index:03d}.png", mask * 255)
    return root


def write_btad(
    root: Path,
    categories: tuple[str, ...] = ("01", "02", "03"),
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
    normal: str = "ok",
) -> Path:
    """BTAD: bmp and png by product, stems shared by ok and ko; 03 is not square."""
    for number, category in enumerate(categories):
        image_suffix = ".png" if category == "02" else ".bmp"
        mask_suffix = ".bmp" if category == "03" else ".png"
        shape = (size, size + size // 3) if category == "03" else (size, size)
        for part, count in ((f"train/{normal}", train), (f"test/{normal}", good)):
            for index in range(count):
                image = texture(1000 * number + 100 * len(part) + index, *shape)
                write(root / category / part / f"{index:04d}{image_suffix}", image)
        for index in range(bad):
            image, mask = defective(1000 * number + 500 + index, *shape)
            write(root / category / "test" / "ko" / f"{index:04d}{image_suffix}", image)
            truth = root / category / "ground_truth" / "ko"
            write(truth / f"{index:04d}{mask_suffix}", mask * 255)
    return root


def write_dtd(
    root: Path,
    categories: tuple[str, ...] = ("Blotchy_099", "Mesh_114"),
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
    mask_name: str = "{stem}_mask",
    defect: str = "bad",
) -> Path:
    """DTD-Synthetic: MVTec's tree; how masks are named differs between copies."""
    for number, category in enumerate(categories):
        for part, count in (("train/good", train), ("test/good", good)):
            for index in range(count):
                image = texture(1000 * number + 100 * len(part) + index, size, size)
                write(root / category / part / f"{index:03d}.png", image)
        for index in range(bad):
            image, mask = defective(1000 * number + 500 + index, size, size)
            write(root / category / "test" / defect / f"{index:03d}.png", image)
            name = mask_name.format(stem=f"{index:03d}", index=index)
            write(root / category / "ground_truth" / defect / f"{name}.png", mask * 255)
    return root


def write_mpdd(root: Path, categories: tuple[str, ...] = ("bracket_black", "tubes")) -> Path:
    """MPDD: MVTec AD's tree."""
    return write_mvtec(root, categories)


def write_mvtec_loco(
    root: Path,
    categories: tuple[str, ...] = ("juice_bottle",),
    train: int = 5,
    validation: int = 2,
    good: int = 3,
    bad: int = 2,
    size: int = 48,
) -> Path:
    """MVTec LOCO: `bad` of each kind; two masks in a folder per image, values name the defect."""
    for number, category in enumerate(categories):
        parts = (("train", train), ("validation", validation), ("test", good))
        for part, count in parts:
            for index in range(count):
                image = texture(1000 * number + 50 * len(part) + index, size, size)
                write(root / category / part / "good" / f"{index:03d}.png", image)
        for kind, defect in enumerate(("logical_anomalies", "structural_anomalies")):
            for index in range(bad):
                image, mask = defective(1000 * number + 900 + 10 * kind + index, size, size)
                write(root / category / "test" / defect / f"{index:03d}.png", image)
                truth = root / category / "ground_truth" / defect / f"{index:03d}"
                top = mask * (np.arange(size)[:, None] < np.argmax(mask.any(axis=1)) + 3)
                write(truth / "000.png", top * np.uint8(255))
                write(truth / "001.png", (mask - top) * np.uint8(90))
    return root


def write_real_iad(
    root: Path,
    categories: tuple[str, ...] = ("audiojack",),
    train: int = 6,
    good: int = 3,
    bad: int = 3,
    size: int = 48,
    views: int = 1,
) -> Path:
    """Real-IAD: `views` of each specimen in its folder, splits in one JSON list per object."""
    for number, category in enumerate(categories):
        images = root / "realiad_1024" / category
        samples: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
        for index in range(train + good):
            for view in range(1, views + 1):
                name = f"OK/S{index:04d}/{category}_{index:04d}_OK_C{view}_20230101.jpg"
                write(images / name, texture(1000 * number + index, size, size))
                sample = {"category": category, "anomaly_class": "OK", "image_path": name}
                samples["train" if index < train else "test"].append({**sample, "mask_path": None})
        for index in range(bad):
            stem = f"NG/HS/S{index:04d}/{category}_{index:04d}_NG_HS_C1_20230101"
            image, mask = defective(1000 * number + 500 + index, size, size)
            write(images / f"{stem}.jpg", image)
            write(images / f"{stem}.png", mask * 255)
            sample = {"category": category, "anomaly_class": "HS", "image_path": f"{stem}.jpg"}
            samples["test"].append({**sample, "mask_path": f"{stem}.png"})
        lists = root / "realiad_jsons" / "realiad_jsons"
        lists.mkdir(parents=True, exist_ok=True)
        meta = {"normal_class": "OK", "prefix": f"{category}/", "pre_transform": None}
        (lists / f"{category}.json").write_text(json.dumps({"meta": meta, **samples}))
    return root


class Tree(NamedTuple):
    """A data set in small."""

    write: Callable[..., Path]
    """Writes the tree into a folder and returns it."""
    data_set: type[sets.AnomalyDataModule]
    categories: list[str]


TREES = {
    "MVTecAD": Tree(write_mvtec, sets.MVTecAD, ["bottle", "grid"]),
    "MTD": Tree(write_mtd, sets.MTD, ["mtd"]),
    "VisA": Tree(write_visa_raw, sets.VisA, ["candle", "pcb1"]),
    "VisA converted": Tree(write_visa_converted, sets.VisA, ["candle", "pcb1"]),
    "BTAD": Tree(write_btad, sets.BTAD, ["01", "02", "03"]),
    "DTDSynthetic": Tree(write_dtd, sets.DTDSynthetic, ["Blotchy_099", "Mesh_114"]),
    "MPDD": Tree(write_mpdd, sets.MPDD, ["bracket_black", "tubes"]),
    "MVTecLOCO": Tree(write_mvtec_loco, sets.MVTecLOCO, ["juice_bottle"]),
    "RealIAD": Tree(write_real_iad, sets.RealIAD, ["audiojack"]),
    "Folder": Tree(write_folder, sets.Folder, ["tree"]),
}
"""Every published layout; `Folder` names its category after the folder."""


def write_autoencoder(folder: Path) -> None:
    """The smallest AutoencoderKL, saved as a hub would serve it."""
    from diffusers import AutoencoderKL  # slow, and needed by few tests

    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(folder)
