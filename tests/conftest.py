"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with golden numbers, real data and real weights; tests that need it skip without."""
    folder = Path(os.environ.get("LIGHTNING_AD_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: set LIGHTNING_AD_SHARED to the recorded material")
    return folder
