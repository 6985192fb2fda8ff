"""Fixtures shared by all tests."""

import pytest
from diffusers import AutoencoderKL


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
