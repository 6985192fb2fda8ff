"""``lightning summarize RUNS_DIR``: one table over many runs, method against method.

Reads every ``metrics.json`` below a folder, with the ``config.yaml`` beside it, and gives the mean
and the sample standard deviation (divided by n - 1) over seeds. Numbers are only averaged where
nothing but the seed differs: runs of other settings get rows of their own, and runs that were
measured differently (another image size, other files, another protocol) are refused by name.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning_ad.reports.files import write_whole
from lightning_ad.reports.recorded_runs import (
    Run,
    SummaryError,
    comparable,
    difference,
    grouped,
    read_run,
    refuse_strays,
)
from lightning_ad.reports.summary_tables import FORMATS, Row, Summary


def summarize(runs: Sequence[Run]) -> Summary:
    """Mean and deviation over seeds, per data set, category and method.

    Raises SummaryError where runs were measured differently or a seed appears twice.
    """
    refuse_strays(runs)
    notes: list[str] = []
    groups = defaultdict(list)
    for run, label in zip(runs, _labels(runs), strict=True):
        groups[run.data_set, label].append(run)
    rows = [
        row
        for (data_set, label), group in groups.items()
        for row in _rows(data_set, label, group, notes)
    ]
    rows.sort(key=lambda row: (row.data_set, row.category == "mean", row.category, row.method))
    return Summary(rows, [*notes, *_unlike(groups)])


def _labels(runs: Sequence[Run]) -> list[str]:
    """Each run's method, with the settings in which runs on one category differ."""
    varying: dict[tuple[str, str], set[str]] = defaultdict(set)
    per_category = [(run, category) for run in runs for category in run.metrics]
    for pairs in grouped(per_category, lambda p: (p[0].method, p[0].data_set, p[1])).values():
        settings = [run.settings for run, _ in pairs]
        names = {name for one in settings for name in one}
        varying[pairs[0][0].method, pairs[0][0].data_set] |= {
            name for name in names if len({json.dumps(one.get(name)) for one in settings}) > 1
        }
    labels = []
    for run in runs:
        differing = sorted(varying[run.method, run.data_set])
        titles = [name.removeprefix("model.").replace("init_args.", "") for name in differing]
        values = [_short(run.settings.get(name)) for name in differing]
        settings = [f"{title}={value}" for title, value in zip(titles, values, strict=True)]
        labels.append(" ".join([run.method, *settings]))
    return labels


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _rows(data_set: str, label: str, runs: Sequence[Run], notes: list[str]) -> list[Row]:
    """One row per category, and their mean over the seeds that have all categories."""
    by_category: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for run in runs:
        for category, metrics in run.metrics.items():
            if run.seed in by_category[category]:
                raise SummaryError(
                    f"{run.folder} repeats {label} on {data_set} {category} with seed {run.seed}: "
                    "it would make the deviation look smaller than it is; remove one of the two"
                )
            by_category[category][run.seed] = metrics
    rows = [Row(data_set, c, label, *_over_seeds(seeds)) for c, seeds in by_category.items()]
    complete: dict[int, dict[str, float]] = {}
    for seed in sorted({run.seed for run in runs}):
        missing = [category for category in by_category if seed not in by_category[category]]
        if missing:
            notes.append(f"{label}: seed {seed} lacks {', '.join(missing)} and is not in the mean")
        else:
            found = [seeds[seed] for seeds in by_category.values()]
            complete[seed] = {name: _mean(m.get(name) for m in found) for name in found[0]}
    return [*rows, Row(data_set, "mean", label, *_over_seeds(complete))] if complete else rows


def _over_seeds(seeds: dict[int, dict[str, float]]) -> tuple[int, dict[str, tuple[float, float]]]:
    """Number of seeds, and each metric's mean and sample standard deviation (NaN for one seed)."""
    names = dict.fromkeys(name for metrics in seeds.values() for name in metrics)
    values = {}
    for name in names:
        known = _known(metrics.get(name) for metrics in seeds.values())
        values[name] = (_mean(known), stdev(known) if len(known) > 1 else float("nan"))
    return len(seeds), values


def _known(values: Iterable[float | None]) -> list[float]:
    """The values that are neither missing nor NaN, the only number unequal to itself."""
    return [value for value in values if value is not None and value == value]


def _mean(values: Iterable[float | None]) -> float:
    known = _known(values)
    return fmean(known) if known else float("nan")


def _unlike(groups: dict[tuple[str, str], list[Run]]) -> list[str]:
    """A note where the methods of one data set were not measured alike."""
    notes = []
    for data_set, kinds in grouped(groups.items(), lambda item: item[0][0]).items():
        first = kinds[0][1][0]
        notes += [
            f"{data_set}, {label} is not like for like: {difference(runs[0], first)}"
            for (_, label), runs in kinds[1:]
            if comparable(runs[0]) != comparable(first)
        ]
    return notes


def main(arguments: Sequence[str]) -> None:
    """Run ``lightning summarize``."""
    parser = argparse.ArgumentParser(
        "lightning summarize", description="One table over all runs below a folder."
    )
    parser.add_argument("runs_dir", type=Path, help="folder with run folders, at any depth")
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    parser.add_argument("--output", type=Path, help="file to write instead of the screen")
    options = parser.parse_args(arguments)
    files = sorted(options.runs_dir.rglob("metrics.json"))
    if not files:
        sys.exit(f"no metrics.json below {options.runs_dir}: give the folder that holds your runs")
    try:
        text = FORMATS[options.format](summarize([read_run(file) for file in files]))
    except SummaryError as error:
        sys.exit(str(error))
    if options.output:
        write_whole(options.output, text)
    else:
        sys.stdout.write(text)
