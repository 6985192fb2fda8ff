"""Images that an exported file is compared on: normal ones, and the same with pasted defects."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import ArgumentParser

from data_modules import AnomalyDataModule
from data_modules.defects import paste_defect
from data_modules.problems import DataError
from data_modules.reading.dataset import as_pixels
from data_modules.reading.framing import Framing
from data_modules.reading.images import Pixels, read_image
from data_modules.reading.walk import images_below
from lightning_ad.detector.photograph import seen

MOST = 16
"""Photographs that are taken, evenly spread over those there are."""


def photographs(folder: Path | None, config: dict, category: str | None) -> list[Path]:
    """Photographs in a folder, or those that the checkpoint's configuration calibrated on.

    Raises:
        ValueError: if there are none.
    """
    files = _held_out(config, category) if folder is None else sorted(images_below(folder))
    if not files:
        raise ValueError(f"{folder} holds no photograph: name a folder of normal ones by --images")
    return spread(files, MOST)


def spread(files: Sequence[Path], most: int) -> list[Path]:
    """So many of the files, at even distances."""
    return [files[i * len(files) // most] for i in range(most)] if len(files) > most else [*files]


def _held_out(config: dict, category: str | None) -> list[Path]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AnomalyDataModule, "data")
    try:
        data = parser.instantiate(parser.parse_object({"data": config["data"]})).data
        records = data.held_out_records()
    except (DataError, OSError) as error:
        raise ValueError(
            f"the images that calibrated the checkpoint are not here ({error}): name a folder of "
            "normal photographs of the part by --images"
        ) from error
    return [record.image for record in records if category in (None, record.category)]


def samples(files: Sequence[Path], framing: Framing, defects: int) -> tuple[Pixels, list[bool]]:
    """What a detector sees of photographs (N, H, W, 3), each followed by defective copies of it.

    Also whether each has a defect.
    """
    pixels, defective = [], []
    for number, file in enumerate(files):
        normal = as_pixels(seen(read_image(file, framing.white_level), framing)[0])
        generator = np.random.default_rng(number)
        pasted = [paste_defect(normal, "", generator)[0] for _ in range(defects)]
        pixels += [normal, *pasted]
        defective += [False, *[True] * defects]
    return np.stack(pixels), defective
