"""Runs as their folders describe them, and which of them may be averaged at all.

A run's numbers depend on how they were measured: image size, files, protocol, version of the
metrics. All of it stands beside the numbers in ``metrics.json``, so that a stray run is found.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_modules.reading.texts import read_json, read_yaml
from lightning_ad.reports.files import PARTS
from lightning_ad.reports.summary_tables import SPEED

OF_ONE_CATEGORY = ("fingerprint", "data.categories", "data.train", "data.test")
"""What rightly differs between a method's runs on different categories of one data set."""

MEASUREMENT = ("fingerprint", "protocol", "metrics_version", "fpr_limit", "exact", "data")
"""The entries of metrics.json that say how its numbers were measured."""

TRAINING = ("model", "data.init_args.batch_size", "data.init_args.augment", "trainer.max_epochs",
            "trainer.max_steps", "trainer.precision")  # fmt: skip
"""The settings that make runs of one method different."""


class SummaryError(Exception):
    """Runs that cannot be summarised, with the files to look at."""


@dataclass(frozen=True)
class Run:
    """What one run folder says."""

    folder: Path
    method: str
    data_set: str
    seed: int
    measured: dict[str, Any]
    """How its numbers were measured, flat: ``data.image_size`` and the like."""
    settings: dict[str, Any]
    """How it was trained, flat."""
    metrics: dict[str, dict[str, float]]
    """Values by category and metric, NaN where undefined; the speed is each category's."""
    data: dict[str, Any]
    """The configuration of its data, as the file has it."""
    test_files: str
    """Hash of its test images, empty where an earlier version did not write it."""
    tested: tuple[str, ...] = ()
    """In what the test was not the run's own: other settings, or a part of the images."""

    @property
    def kind(self) -> tuple[str, str, tuple[str, ...]]:
        """What runs must share to be compared seed by seed: method, data set, way of testing."""
        return self.method, self.data_set, self.tested


def read_run(file: Path, trained: Path | None = None, tested: Sequence[str] = ()) -> Run:
    """Read a metrics.json and the config.yaml beside it.

    Args:
        file: the metrics.json.
        trained: configuration of the training, if another than the one beside ``file``.
        tested: in what that of the test differs.

    Raises:
        SummaryError: if a file is not readable.
    """
    config_file = file.with_name("config.yaml")
    try:
        results = read_json(file)
        config = read_yaml(config_file)
        training = read_yaml(trained) if trained else config
        model, data = config["model"], config["data"]
        return Run(
            file.parent,
            model["class_path"].split(".")[-1],
            data["class_path"].split(".")[-1],
            config["seed_everything"],
            {"fingerprint": results["fingerprint"]} | flat(results, MEASUREMENT),
            flat(training, TRAINING),
            _metrics(results),
            data,
            results.get("test_files", ""),
            (*tested, *(f"only {results[name]}" for name in PARTS if name in results)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SummaryError(
            f"{file.parent} is no finished run: metrics.json and config.yaml as 'lightning fit' "
            f"writes them are needed ({type(error).__name__}: {error})"
        ) from error


def _metrics(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    metrics: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in results.items():
        category, _, metric = key.removeprefix("test/").rpartition("/")
        if key.startswith("test/") and category not in ("", "mean"):
            metrics[category][metric] = float("nan") if value is None else float(value)
    for values in metrics.values():
        values |= {SPEED: results[f"test/{SPEED}"]} if f"test/{SPEED}" in results else {}
    return dict(metrics)


def flat(tree: Any, wanted: Iterable[str], name: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries below the ``wanted`` names, as ``a.b.c: value``."""
    if isinstance(tree, dict) and tree:
        leaves = (flat(v, wanted, f"{name}.{k}".lstrip(".")) for k, v in tree.items())
        return {key: value for part in leaves for key, value in part.items()}
    return {name: tree} if any(f"{name}.".startswith(f"{want}.") for want in wanted) else {}


def refuse_strays(runs: Sequence[Run]) -> None:
    """Raise SummaryError naming the runs that were measured unlike most of their kind."""
    strays: dict[Path, str] = {}
    for group in grouped(runs, lambda run: run.kind).values():
        strays |= _strays(group, lambda run: comparable(run))
    per_category = [(run, category) for run in runs for category in run.metrics]
    for pairs in grouped(per_category, lambda p: (p[0].kind, p[1])).values():
        strays |= _strays([run for run, _ in pairs], lambda run: run.measured["fingerprint"])
    if strays:
        raise SummaryError(
            "these runs were measured differently and are not averaged with the others:\n"
            + "\n".join(f"  {folder}: {what}" for folder, what in sorted(strays.items()))
            + "\nsummarize them on their own, or move them elsewhere"
        )


def _strays(group: Sequence[Run], key: Callable[[Run], Any]) -> dict[Path, str]:
    """The runs whose key is not the most common one, and in what each differs."""
    keys = [json.dumps(key(run), sort_keys=True) for run in group]
    usual_key = Counter(keys).most_common(1)[0][0]
    usual = group[keys.index(usual_key)]
    return {
        run.folder: difference(run, usual)
        for run, own in zip(group, keys, strict=True)
        if own != usual_key
    }


def difference(run: Run, usual: Run) -> str:
    """In what one run was measured unlike another."""
    names = {**comparable(usual), **comparable(run)}
    if comparable(run) == comparable(usual):
        names = {**usual.measured, **run.measured}
    changed = [
        f"{name} is {run.measured.get(name)}, in {usual.folder} it is {usual.measured.get(name)}"
        for name in names
        if run.measured.get(name) != usual.measured.get(name)
    ]
    return "; ".join(changed)


def comparable(run: Run) -> dict[str, Any]:
    """What must agree for numbers of several categories to be averaged."""
    return {key: value for key, value in run.measured.items() if key not in OF_ONE_CATEGORY}


def grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """Items by their key, in order."""
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups
