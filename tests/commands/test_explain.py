"""What a user reads when a command cannot go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from data_modules.problems import ImageError, Problem
from lightning_ad.commands.explain import TRACEBACK, reason
from tests.fakes import write_mtd
from tests.shrunk import REPOSITORY, fit_ddad

BROKEN = ["fit", "--config=experiments/demo.yaml", "--data.val_fraction=3"]


class Damaged(Dataset):
    """A data set whose image cannot be read."""

    def __len__(self):
        return 1

    def __getitem__(self, item):
        raise ImageError(Problem("unreadable", Path("3.png"), "its content cannot be decoded"))


def test_an_error_in_a_loaders_worker_is_as_short():
    with pytest.raises(ImageError) as raised:
        next(iter(DataLoader(Damaged(), num_workers=1)))
    assert "Traceback" in str(raised.value)
    assert reason(raised.value) == "unreadable: 3.png: its content cannot be decoded"


@pytest.mark.whole
@pytest.mark.parametrize("asked", [False, True])
def test_the_reason_comes_alone_unless_a_traceback_is_asked_for(asked, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        **({TRACEBACK: "1"} if asked else {}),
    }
    process = subprocess.run(
        [sys.executable, "-m", "lightning_ad", *BROKEN, f"--run_dir={tmp_path}"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 1
    assert ("Traceback" in process.stderr) == asked
    message = "data.val_fraction must lie between 0 and 1, not 3.0"
    assert (f"error: {message}" in process.stderr) != asked and message in process.stderr


@pytest.mark.whole
def test_an_error_in_the_middle_of_a_tracked_run_is_as_short(tmp_path):
    root = write_mtd(tmp_path / "mtd")
    arguments = fit_ddad(root, tmp_path / "run", tmp_path / "cache", "--model.optimizer.lr=1e30")
    arguments.remove("--trainer.logger=false")  # W&B's, whose exit hook prints tracebacks
    process = subprocess.run(
        [sys.executable, "-m", "lightning_ad", *arguments],
        cwd=REPOSITORY, env={**os.environ, "WANDB_MODE": "offline"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 1 and list(tmp_path.glob("run/wandb/offline-*"))
    assert "error: the loss is " in process.stderr and "Traceback" not in process.stderr
