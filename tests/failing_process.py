"""The command line, in which calibration fails on one process.

``python -m tests.failing_process RANK ARGUMENTS...``
"""

import sys

from lightning_ad.cli import main
from lightning_ad.methods import DDAD

if __name__ == "__main__":
    rank, *arguments = sys.argv[1:]
    original = DDAD.compare

    def compare(self, image, category):
        if self.trainer.global_rank == int(rank):
            raise RuntimeError(f"process {rank} lost its camera")
        return original(self, image, category)

    DDAD.compare = compare
    main(arguments)
