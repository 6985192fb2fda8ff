"""What a user reads when a command cannot go on."""

import os
import subprocess
import sys

import pytest

from lightning_ad.explain import TRACEBACK
from tests.shrunk import REPOSITORY

BROKEN = ["fit", "--config=experiments/demo.yaml", "--data.val_fraction=3"]


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
