"""Made-up data and weights for a rehearsal at toy size."""

import argparse
import os
from pathlib import Path

from tests.fakes import write_autoencoder, write_mtd, write_mvtec

IMAGES = {"train": 12, "good": 3}


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """Write what the toy recipes need below ``folder``, and point the options to it."""
    write_mvtec(folder / "mvtec", tuple(options.categories), **IMAGES, bad=3)
    write_mtd(folder / "mtd", **IMAGES)
    write_autoencoder(folder / "autoencoder")
    os.environ["TOY_AUTOENCODER"] = str(folder / "autoencoder")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    options.root, options.recipes = folder, "toy"
