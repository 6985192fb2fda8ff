"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from diffusers import AutoencoderKL

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with golden numbers, real data and real weights; tests that need it skip without."""
    folder = Path(os.environ.get("LIGHTNING_AD_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set LIGHTNING_AD_SHARED to the recorded material")
    return folder


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """The smallest AutoencoderKL, saved as a hub would serve it."""
    folder = tmp_path_factory.mktemp("autoencoder")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(folder)
    return folder
