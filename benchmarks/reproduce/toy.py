"""Made-up data and weights for a rehearsal at toy size."""

import argparse
import os
from pathlib import Path

from diffusers import AutoencoderKL

from tests.fakes import write_mtd, write_mvtec

IMAGES = {"train": 12, "good": 3}


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """Write what the toy recipes need below ``folder``, and point the options to it."""
    write_mvtec(folder / "mvtec", tuple(options.categories), **IMAGES, bad=3)
    write_mtd(folder / "mtd", **IMAGES)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(folder / "autoencoder")
    os.environ["TOY_AUTOENCODER"] = str(folder / "autoencoder")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    options.root, options.recipes = folder, "toy"
