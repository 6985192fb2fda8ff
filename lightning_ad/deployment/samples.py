"""Images that an exported file is compared on: normal ones, and the same with pasted defects."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jsonargparse import ArgumentParser

from data_modules import AnomalyDataModule
from data_modules.defects import paste_defect
from data_modules.problems import DataError
from data_modules.reading.dataset import as_pixels
from data_modules.reading.framing import Framing
from data_modules.reading.geometry import Window
from data_modules.reading.images import Pixels, read_image
from data_modules.reading.samplers import few_of
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
    return few_of(files, MOST)


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


class Samples(NamedTuple):
    """Images to compare on."""

    pixels: Pixels
    """(N, H, W, 3): what a detector sees of photographs, each followed by defective copies."""
    defective: list[bool]
    window: Window | None
    """Where they show the photograph; None where there is no padding."""


def samples(files: Sequence[Path], framing: Framing, defects: int) -> Samples:
    """So many defective copies of each photograph, and itself.

    Raises:
        ValueError: if the photographs are padded in more than one way.
    """
    pixels, defective, windows = [], [], []
    for number, file in enumerate(files):
        photograph = read_image(file, framing.white_level)
        windows.append(framing.window((photograph.shape[0], photograph.shape[1])))
        normal = as_pixels(seen(photograph, framing)[0])
        generator = np.random.default_rng(number)
        pasted = [paste_defect(normal, "", generator)[0] for _ in range(defects)]
        pixels += [normal, *pasted]
        defective += [False, *[True] * defects]
    return Samples(np.stack(pixels), defective, _common(windows) if framing.padded else None)


def _common(windows: list[Window]) -> Window:
    """The one place where all photographs lie."""
    others = [number for number, window in enumerate(windows) if window != windows[0]]
    if others:
        raise ValueError(
            "data.fit pad scores only where the photograph lies, and the photographs compared on "
            "have several shapes, which no file can tell apart: name a folder with photographs of "
            "one shape by --images, or export a run with squash or crop"
        )
    return windows[0]
