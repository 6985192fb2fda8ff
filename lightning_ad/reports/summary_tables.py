"""A summary of runs as text: for the terminal, spreadsheets, Markdown and LaTeX."""

import csv
import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

CAPTION = "mean ± sample standard deviation over seeds (n - 1)"


@dataclass(frozen=True)
class Row:
    """One method on one category: each metric's mean and deviation over ``seeds`` runs."""

    data_set: str
    category: str
    method: str
    seeds: int
    values: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Summary:
    """All rows, and what a reader must know about them."""

    rows: list[Row]
    notes: list[str]

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, in the order of their appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.values))

    @property
    def titles(self) -> list[str]:
        """Column titles."""
        return ["data", "category", "method", "seeds", *self.metrics]

    def cells(self, plus_minus: str = " ± ") -> list[list[str]]:
        """The table's body as text."""
        return [
            [row.data_set, row.category, row.method, str(row.seeds)]
            + [_number(row.values.get(name), plus_minus) for name in self.metrics]
            for row in self.rows
        ]


def _number(value: tuple[float, float] | None, plus_minus: str) -> str:
    if value is None or value[0] != value[0]:  # undefined
        return "-"
    mean, deviation = value
    return f"{mean:.4f}" + (f"{plus_minus}{deviation:.4f}" if deviation == deviation else "")


def as_terminal(summary: Summary) -> str:
    """A table as wide as the screen, in colour where the terminal shows it."""
    table = Table(caption="\n".join([CAPTION, *summary.notes]))
    for title in summary.titles:
        table.add_column(title, overflow="fold")
    for row, cells in zip(summary.rows, summary.cells(), strict=True):
        table.add_row(*cells, style="bold" if row.category == "mean" else None)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 240
    console = Console(file=io.StringIO(), width=width, force_terminal=sys.stdout.isatty())
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def as_csv(summary: Summary) -> str:
    """Full precision, with a column ``<metric>_std`` beside each metric; empty where undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    pairs = [column for name in summary.metrics for column in (name, f"{name}_std")]
    writer.writerow([*summary.titles[:4], *pairs])
    for row in summary.rows:
        found = [row.values.get(name, (float("nan"),) * 2) for name in summary.metrics]
        numbers = [number if number == number else "" for pair in found for number in pair]
        writer.writerow([row.data_set, row.category, row.method, row.seeds, *numbers])
    return text.getvalue()


def as_markdown(summary: Summary) -> str:
    """A pipe table with its caption."""
    lines = [summary.titles, ["---"] * len(summary.titles), *summary.cells()]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    table = [f"| {' | '.join(line)} |" for line in escaped]
    return "\n".join([*table, "", f"{CAPTION}.", *(f"{note}." for note in summary.notes), ""])


def as_latex(summary: Summary) -> str:
    r"""A ``tabular`` for the package booktabs; a caption in comments."""

    def escaped(text: str) -> str:
        special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
        return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)

    names, numbers = [row[:3] for row in summary.cells()], summary.cells(r" \pm ")
    body = [
        [escaped(name) for name in left] + [right[3]] + [f"${cell}$" for cell in right[4:]]
        for left, right in zip(names, numbers, strict=True)
    ]
    lines = [" & ".join(line) + r" \\" for line in ([escaped(t) for t in summary.titles], *body)]
    return "\n".join(
        [f"% {note}" for note in (CAPTION.replace("±", "+-"), *summary.notes)]
        + [rf"\begin{{tabular}}{{lllr{'c' * len(summary.metrics)}}}", r"\toprule", lines[0]]
        + [r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}", ""]
    )


FORMATS: dict[str, Callable[[Summary], str]] = {
    "terminal": as_terminal,
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
}
