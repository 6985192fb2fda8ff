"""Fixtures shared by all tests."""

import pytest

from tests.fakes import write_autoencoder


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """The smallest AutoencoderKL, saved as a hub would serve it."""
    folder = tmp_path_factory.mktemp("autoencoder")
    write_autoencoder(folder)
    return folder
