"""Small runs of DDAD on tiles, some of them finished."""

import shutil

import pytest

from lightning_ad.cli import main
from tests.fakes import write_mtd
from tests.shrunk import fit_ddad


@pytest.fixture
def arguments(tmp_path):
    """Makes the arguments of a run in a folder of its own, with more options."""
    root = write_mtd(tmp_path / "mtd")

    def make(run: str, *more: str) -> list[str]:
        return fit_ddad(root, tmp_path / run, tmp_path / "cache", *more)

    return make


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    main(fit_ddad(write_mtd(folder / "mtd"), folder / "run", folder / "cache"))
    return folder / "run"


@pytest.fixture
def finished(trained_once, tmp_path):
    """The folder ``run``, as `arguments` without further options would leave it."""
    return shutil.copytree(trained_once, tmp_path / "run")
