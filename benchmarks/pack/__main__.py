"""Pack all that a results table needs for a machine without a network.

    export MVTEC_ROOT=... MTD_ROOT=... RESNET50=... TAESD=...
    python -m benchmarks.pack --output pack/ --px 256 --categories bottle screw

The other machine has Python 3.12 on x86-64 Linux with torch, lightning, timm, torchmetrics and
opencv. There, one line installs the rest into the pack's own folder, and runs:

    python3 pack/run.py --minutes 9

Packed are the other wheels, this project, the data at the size in use, and the weights that the
recipes for a GPU name, cut to the layers in use, in float16. Packages that no run of the table
imports are left out (`LEFT_OUT` in wheels.py), as their wheels would fill the pack.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.pack.contents import REPOSITORY, pack
from benchmarks.pack.images import DATA, open_data
from benchmarks.pack.problems import PackError
from benchmarks.pack.weights import named_by

RECIPES = REPOSITORY / "benchmarks" / "recipes" / "gpu"


def main(arguments: list[str] | None = None) -> int:
    """Write the pack; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pack", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--output", type=Path, required=True, help="a folder that is not there yet")
    add("--px", type=int, default=256, help="side of the packed images")
    add("--data", nargs="+", choices=DATA, default=list(DATA))
    add("--categories", nargs="+", default=["bottle", "screw"], help="of MVTec AD")
    add("--root", type=Path, help="folder of mvtec/ and mtd/; else MVTEC_ROOT and MTD_ROOT say")
    add("--limit", type=float, default=55.0, help="largest size in megabytes")
    options = parser.parse_args(arguments)
    try:
        named = named_by(RECIPES)
        data = {name: open_data(name, options.categories, options.root) for name in options.data}
        pack(options.output, data, named, options.px, options.limit)
    except PackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
