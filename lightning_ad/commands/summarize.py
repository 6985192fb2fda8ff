"""``lightning summarize RUNS_DIR``: one table over many runs, method against method.

Reads every ``metrics.json`` below a folder, with the ``config.yaml`` beside it, and gives the mean
and the sample standard deviation (divided by n - 1) over seeds. Numbers are only averaged where
nothing but the seed differs: runs and tests of other settings get rows of their own, and runs that
were measured differently (another image size, other files, another protocol) are refused by name.
Beside them stands what takes no method at all (see `commands.baselines`).
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lightning_ad.commands.baselines import baselines
from lightning_ad.commands.paths import path
from lightning_ad.experiment.run_folder import RunFolder
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
from lightning_ad.reports.summary_tables import (
    FORMATS,
    MEAN,
    Row,
    Summary,
    Value,
    all_metrics,
    one_metric,
    with_best,
    with_extent,
)


def summarize(runs: Sequence[Run], folder: Path) -> Summary:
    """Mean and deviation over seeds, per data set, category and method, beside trivial baselines.

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
    trivial, remarks = baselines(rows, runs, folder)
    rows = with_extent([*rows, *trivial])
    rows.sort(key=lambda row: (row.data_set, row.is_mean, row.category, row.method))
    return Summary(with_best(rows), [*notes, *_unlike(groups), *remarks])


def _labels(runs: Sequence[Run]) -> list[str]:
    """Each run's method, with the settings in which runs on one category differ."""
    varying: dict[tuple, set[str]] = defaultdict(set)
    per_category = [(run, category) for run in runs for category in run.metrics]
    for pairs in grouped(per_category, lambda p: (p[0].kind, p[1])).values():
        settings = [run.settings for run, _ in pairs]
        names = {name for one in settings for name in one}
        varying[pairs[0][0].kind] |= {
            name for name in names if len({json.dumps(one.get(name)) for one in settings}) > 1
        }
    labels = []
    for run in runs:
        settings = [f"{_title(n)}={_short(run.settings.get(n))}" for n in sorted(varying[run.kind])]
        tested = [f"(test: {', '.join(map(_title, run.tested))})"] if run.tested else []
        labels.append(" ".join([run.method, *settings, *tested]))
    return labels


def _title(setting: str) -> str:
    return setting.removeprefix("model.").replace("init_args.", "")


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
    how = json.dumps(comparable(runs[0]), sort_keys=True)
    rows = [Row(data_set, c, label, *_over_seeds(seeds), how) for c, seeds in by_category.items()]
    complete: dict[int, dict[str, float]] = {}
    for seed in sorted({run.seed for run in runs}):
        missing = [category for category in by_category if seed not in by_category[category]]
        if missing:
            notes.append(f"{label}: seed {seed} lacks {', '.join(missing)} and is not in the mean")
        else:
            found = [seeds[seed] for seeds in by_category.values()]
            names = dict.fromkeys(name for metrics in found for name in metrics)
            complete[seed] = {name: _mean(m.get(name) for m in found) for name in names}
    if complete:
        rows.append(Row(data_set, MEAN, label, *_over_seeds(complete), how))
    return rows


def _over_seeds(seeds: dict[int, dict[str, float]]) -> tuple[int, dict[str, Value]]:
    """Number of seeds, and each metric's mean and sample standard deviation (NaN for one seed)."""
    names = dict.fromkeys(name for metrics in seeds.values() for name in metrics)
    values = {}
    for name in names:
        known = _known(metrics.get(name) for metrics in seeds.values())
        values[name] = Value(_mean(known), stdev(known) if len(known) > 1 else float("nan"))
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


def _read(file: Path) -> Run:
    """A run's own test, or one with other settings, whose folder lies in the run's."""
    test, run = RunFolder(file.parent), RunFolder(file.parent.parent)
    if not re.fullmatch(r"test-\d+", test.path.name) or not run.config.exists():
        return read_run(file)
    return read_run(file, run.config, run.differences_in_test(test.settings()))


def main(arguments: Sequence[str]) -> None:
    """Run ``lightning summarize``."""
    parser = argparse.ArgumentParser(
        "lightning summarize", description="One table over all runs below a folder."
    )
    parser.add_argument("runs_dir", type=path, help="folder with run folders, at any depth")
    parser.add_argument("--metric", help="one table of it per data set: categories by methods")
    parser.add_argument("--format", choices=FORMATS, default="terminal")
    parser.add_argument("--output", type=path, help="file to write instead of the screen")
    options = parser.parse_args(arguments)
    files = sorted(options.runs_dir.rglob("metrics.json"))
    if not files:
        sys.exit(f"no metrics.json below {options.runs_dir}: give the folder that holds your runs")
    try:
        summary = summarize([_read(file) for file in files], options.runs_dir)
    except SummaryError as error:
        sys.exit(str(error))
    if options.metric not in (None, *summary.metrics):
        sys.exit(f"no run has {options.metric} (--metric): they have {', '.join(summary.metrics)}")
    tables = one_metric(summary, options.metric) if options.metric else all_metrics(summary)
    text = FORMATS[options.format](tables, summary.notes)
    if options.output:
        write_whole(options.output, text)
    else:
        sys.stdout.write(text)
