"""What a test leaves behind: metrics.json, metrics.csv, scores.csv and a table for the eye."""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from rich.table import Table

from data_modules.reading.store import written_whole
from lightning_ad.metrics.detection import IMAGE_METRICS, PIXEL_METRICS

PARTS = ("part", "calibrated_on")
"""Entries of metrics.json that say that not all images were scored, or calibrated on."""

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that spreadsheets take for a formula."""


def fingerprint(fields: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits that stand for what defines a row of results."""
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def name_below(path: str, root: Path) -> PurePath:
    """Return a file's path below `root`, or its whole path made relative: one name per file."""
    absolute, top = Path(path).absolute(), root.absolute()
    inside = absolute.is_relative_to(top)
    return absolute.relative_to(top if inside else absolute.anchor)


def write_whole(path: Path, text: str) -> None:
    """Write a text file entirely or not at all."""
    with written_whole(path) as partial:
        # Names of files need not be UTF-8.
        partial.write_text(text, "utf-8", "surrogateescape", "\n")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a flat JSON object; NaN, which JSON does not know, becomes null."""
    known = {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in values.items()
    }
    write_whole(path, json.dumps(known, indent=2, allow_nan=False) + "\n")


def harmless(cell: Any) -> Any:
    """A cell as it is written: no text that a spreadsheet would run as a formula."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with every digit; None and NaN become empty cells."""
    with (
        written_whole(path) as partial,
        partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as text,
    ):
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(_harmless_row(row) for row in rows)


def append_csv(path: Path, row: Sequence[Any]) -> None:
    """Put a row at the end of a table that `write_csv` wrote."""
    with path.open("a", encoding="utf-8", errors="surrogateescape", newline="") as text:
        csv.writer(text, lineterminator="\n").writerow(_harmless_row(row))


def _harmless_row(row: Sequence[Any]) -> list[Any]:
    return ["" if cell != cell else harmless(cell) for cell in row]


def metric_rows(metrics: Mapping[str, float]) -> tuple[list[str], list[list[float]], list[str]]:
    """Return the metrics' names, a row of values per category and for the mean, the rows' names.

    `metrics` has the keys of DetectionMetrics.compute: `<category>/<metric>`, `mean/<metric>`.
    """
    names = [name for name in IMAGE_METRICS + PIXEL_METRICS if f"mean/{name}" in metrics]
    titles = list(dict.fromkeys(key.rpartition("/")[0] for key in metrics))
    return names, [[metrics[f"{title}/{name}"] for name in names] for title in titles], titles


def results_table(metrics: Mapping[str, float], counts: Mapping[str, int], caption: str) -> Table:
    """Return a rich table in percent: a row per category with its image count, and the mean."""
    names, rows, titles = metric_rows(metrics)
    table = Table(title="Test results in percent", caption=caption, caption_justify="left")
    table.add_column("category", overflow="fold")
    table.add_column("images", justify="right")
    for name in names:
        level, _, metric = name.partition("_")
        heading = "F1max" if metric == "f1max" else metric.upper()
        table.add_column(f"{level}\n{heading}", justify="right")
    for title, values in zip(titles, rows, strict=True):
        if title == "mean":
            table.add_section()
        images = counts.get(title, sum(counts.values()))
        cells = ["-" if math.isnan(value) else f"{100 * value:.2f}" for value in values]
        table.add_row(title, str(images), *cells, style="bold" if title == "mean" else None)
    return table
