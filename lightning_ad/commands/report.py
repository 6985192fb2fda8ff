"""``lightning report RUN``: one HTML page of a finished test or prediction, that needs no network.

`test` and `predict` write it too; this makes it again, of whatever a folder still holds. With
several runs on the same images, the page compares them.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from data_modules.problems import DataError
from lightning_ad.commands.paths import path
from lightning_ad.reports.comparison import write_comparison
from lightning_ad.reports.page import write_report
from lightning_ad.reports.results import read_results

log = logging.getLogger(__name__)

NOTHING = (
    "{} holds no predictions.json: give the folder of a run that 'lightning test' or 'lightning "
    "predict' has finished; of an unfinished run, the same command goes on"
)


def folders_in(run: Path) -> list[Path]:
    """Where a run has results: of its test in the folder itself, of its last prediction below.

    Raises:
        SystemExit: where there are none.
    """
    found = [each for each in (run, run / "predictions") if (each / "predictions.json").exists()]
    if not found:
        sys.exit(NOTHING.format(run) if run.is_dir() else f"{run} is no folder")
    return found


def main(arguments: Sequence[str]) -> None:
    """Run ``lightning report``."""
    parser = argparse.ArgumentParser(
        "lightning report", description="One HTML page of a run, or of several compared."
    )
    parser.add_argument("runs", type=path, nargs="+", metavar="RUN", help="folders of runs")
    parser.add_argument(
        "--output", type=path, default=Path("comparison.html"), help="page of several runs"
    )
    options = parser.parse_args(arguments)
    try:
        if len(options.runs) > 1:
            runs = [read_results(folders_in(run)[0]) for run in options.runs]
            write_comparison(runs, options.output)
            return
        for folder in folders_in(options.runs[0]):
            results = read_results(folder)
            for note in results.notes:
                log.warning("%s: %s", folder, note)
            write_report(results)
    except DataError as error:
        sys.exit(str(error))
