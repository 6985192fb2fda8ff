"""What processes do together, and how they part."""

import subprocess
import sys
from pathlib import Path

import pytest

LEAVING = """
import atexit, pathlib, sys
from lightning.pytorch import Callback
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tests.callbacks.example import Data, Detector, trainer

def threads():
    return [file.read_text().strip() for file in pathlib.Path("/proc/self/task").glob("*/comm")]

class Watch(Callback):
    def setup(self, trainer, pl_module, stage):
        atexit.register(lambda: print("after", *threads()))  # runs behind what registers later

    def on_test_end(self, trainer, pl_module):
        cycle = [DistributedDataParallel(nn.Linear(2, 2))]  # as a training leaves one
        cycle.append(cycle)
        print("before", *threads())

folder = pathlib.Path(sys.argv[1])
trainer(folder, Watch(), strategy="ddp").test(Detector(), Data(3, folder / "data"), verbose=False)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are told by Linux only")
def test_no_thread_of_the_group_outlives_the_work(tmp_path):
    """Or a process would now and then abort at its end: PyTorch's pull request 179291."""
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    before, after = (
        next(line for line in done.stdout.splitlines() if line.startswith(word))
        for word in ("before", "after")
    )
    assert "gloo" in before
    assert "gloo" not in after
