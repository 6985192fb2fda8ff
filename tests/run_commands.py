"""Runs several command lines in one program, also as each of several processes of a run.

``python -m tests.run_commands FILE`` with a JSON list of argument lists: starting Python is what
takes most of the time of a small run.
"""

import json
import sys
from pathlib import Path

from lightning_ad.cli import main

if __name__ == "__main__":
    for arguments in json.loads(Path(sys.argv[1]).read_text()):
        main(arguments)
