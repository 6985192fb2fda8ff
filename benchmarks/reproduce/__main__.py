"""Train, calibrate and test every method in the time there is, and write the table of results.

    export MVTEC_ROOT=... MTD_ROOT=... TAEF2_ENCODER=... TAEF2_DECODER=...
    python -m benchmarks.reproduce --data mvtec mtd --categories bottle screw --minutes 35

Each method gets its share of the time, the most valuable first; what one leaves goes to the others.
The tables are written after every run, so that a stop loses one at most; the same command goes on.
A method that fails does not stop the others: the tables give the reason, and the exit status is 1.
On a GPU the recipes are larger; each names the weights that it needs.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from benchmarks.reproduce import toy
from benchmarks.reproduce.cells import SPLITS, VALUE, cells, parts, share
from benchmarks.reproduce.study import Study

ROOTS = {"mvtec": "MVTEC_ROOT", "mtd": "MTD_ROOT"}


def main(arguments: list[str] | None = None) -> int:
    """Run what is left to run; 1 if something failed, else 0."""
    options = _options(arguments)
    with ExitStack() as stack:
        if options.quick:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            toy.prepare(folder, options)
        roots = {data: _root(data, options.root) for data in options.data}
        study = Study(options.output, options.recipes, roots, options.write)
        return _run(study, options)


def _run(study: Study, options: argparse.Namespace) -> int:
    where = parts(options.data, options.categories, options.splits)
    todo = list(cells(_methods(study, options.methods), where, options.seeds))
    for part in where:
        study.compare(part)
    end = time.time() + 60 * options.minutes
    left = [cell for cell in todo if not study.is_done(cell)]
    for place, cell in enumerate(left, 1):
        seconds = share(cell, left[place:], max(0.0, end - time.time()))
        print(f"{place} of {len(left)}, {cell.name}: {seconds / 60:.1f} minutes", flush=True)
        study.run(cell, seconds)
        study.write()
    print(study.write())
    return int(not all(study.is_done(cell) for cell in todo))


def _methods(study: Study, named: list[str] | None) -> list[str]:
    """The methods named, or all that have a recipe."""
    known = [method for method in VALUE if study.recipe(method).exists()]
    for method in named or []:
        if method not in known:
            sys.exit(f"{method} has no {study.recipe(method)}: leave it out, or write one")
    return named or known


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--data", nargs="+", choices=ROOTS, default=list(ROOTS))
    add("--categories", nargs="+", default=["bottle", "screw"], help="of MVTec AD")
    add("--splits", nargs="+", choices=SPLITS, default=list(SPLITS), help="of the magnetic tiles")
    add("--methods", nargs="+", choices=VALUE, help="if not given, all that have a recipe")
    add("--minutes", type=float, default=9.0, help="for everything")
    add("--seeds", type=int, default=1, help="how many, counted from 0")
    add("--root", type=Path, help="folder of mvtec/ and mtd/; else MVTEC_ROOT and MTD_ROOT say")
    add(
        "--recipes",
        choices=("cpu", "gpu", "toy"),
        default="gpu" if torch.cuda.is_available() else "cpu",
        help="experiments/*_cpu.yaml, or a folder of benchmarks/recipes",
    )
    add("--output", type=Path, default=Path("results"))
    add("--write", type=Path, help="a Markdown page to put the tables into")
    add("--quick", action="store_true", help="all of it at toy size, on made-up data")
    return parser.parse_args(arguments)


def _root(data: str, root: Path | None) -> str:
    found = root / data if root else Path(os.environ.get(ROOTS[data], f"data/{data}"))
    if not found.is_dir():
        sys.exit(f"there is no folder {found}: give --root, or set {ROOTS[data]}")
    return str(found.absolute())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the run's process ends, too
    sys.exit(main())
