"""The command line by a clock that each training step moves: twice as far in the second process."""

import os
import sys
import time

import pytest

from lightning_ad.cli import main
from lightning_ad.commands import experiment_cli
from tests.clock import working_clock

if __name__ == "__main__":
    patch = pytest.MonkeyPatch()
    working_clock(patch, step=0.5 * (1 + int(os.environ.get("LOCAL_RANK", 0))))
    patch.setattr(experiment_cli, "process_began", time.time)
    main(sys.argv[1:])
