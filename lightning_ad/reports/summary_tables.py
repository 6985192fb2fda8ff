"""A summary of runs as tables, and tables as text: terminal, spreadsheets, Markdown and LaTeX."""

import csv
import io
import math
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table as Screen

from lightning_ad.reports.files import harmless

CAPTION = (
    "in percent; mean ± sample standard deviation over seeds (n - 1); * the best of a category"
)
SPEED = "images_per_second"
MEAN = "mean"


@dataclass(frozen=True)
class Value:
    """A metric's mean and deviation over runs, NaN where undefined; a fraction but for speed."""

    mean: float
    deviation: float
    best: bool = False

    def text(self, metric: str, plus_minus: str = " ± ") -> str:
        """As `fit` shows it, metrics in percent; `-` where undefined."""
        if math.isnan(self.mean):
            return "-"
        scale, digits = (1, 1) if metric == SPEED else (100, 2)
        text = f"{scale * self.mean:.{digits}f}"
        if math.isnan(self.deviation):
            return text
        return f"{text}{plus_minus}{scale * self.deviation:.{digits}f}"


UNKNOWN = Value(math.nan, math.nan)


@dataclass(frozen=True)
class Row:
    """One method on one category: each metric's mean and deviation over ``seeds`` runs."""

    data_set: str
    category: str
    method: str
    seeds: int
    values: dict[str, Value]
    measured: str = ""
    """How: the best is sought among rows that were measured alike."""

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean over categories, all or some."""
        return self.category == MEAN or self.category.startswith(f"{MEAN} (")


@dataclass(frozen=True)
class Summary:
    """All rows, and what a reader must know about them."""

    rows: list[Row]
    notes: list[str]

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics, in the order of their appearance, speed last."""
        names = dict.fromkeys(name for row in self.rows for name in row.values)
        return sorted(names, key=lambda name: name == SPEED)


@dataclass(frozen=True)
class Table:
    """Columns of words, then columns of values, each of one metric."""

    title: str
    words: list[str]
    metrics: dict[str, str]
    """Each column's title, and the metric that it holds."""
    rows: list[tuple[list[str], list[Value]]]

    def lines(self, plus_minus: str, best: str) -> list[list[str]]:
        """The body as text; ``best`` is a pattern for the best values, as in ``**{}**``."""
        return [
            words
            + [
                (best if value.best else "{}").format(value.text(metric, plus_minus))
                for value, metric in zip(values, self.metrics.values(), strict=True)
            ]
            for words, values in self.rows
        ]


def with_extent(rows: Sequence[Row]) -> list[Row]:
    """Let a mean over some of its data set's categories say so, and vie with none over others."""
    names: dict[str | tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.category != MEAN:
            names[row.data_set].add(row.category)
            names[row.data_set, row.method].add(row.category)
    told = []
    for row in rows:
        own, known = names[row.data_set, row.method], names[row.data_set]
        if row.category == MEAN and own != known:
            extent, measured = (
                f"{MEAN} ({len(own)} of {len(known)})",
                f"{row.measured} {sorted(own)}",
            )
            row = replace(row, category=extent, measured=measured)
        told.append(row)
    return told


def with_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the best values of each category's methods, ties included, where there are several."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.data_set, row.category, row.measured].append(row)
    marked = []
    for row in rows:
        rivals = groups[row.data_set, row.category, row.measured]
        values = {
            name: replace(value, best=_is_best(name, value, rivals))
            for name, value in row.values.items()
        }
        marked.append(replace(row, values=values))
    return marked


def _is_best(name: str, value: Value, rivals: Sequence[Row]) -> bool:
    means = [round(row.values[name].mean, 4) for row in rivals if name in row.values]
    known = [mean for mean in means if not math.isnan(mean)]
    return name != SPEED and len(means) > 1 and bool(known) and round(value.mean, 4) == max(known)


def all_metrics(summary: Summary) -> list[Table]:
    """One row per method and category, one column per metric."""
    rows = [
        (
            [row.data_set, row.category, row.method, str(row.seeds)],
            [row.values.get(name, UNKNOWN) for name in summary.metrics],
        )
        for row in summary.rows
    ]
    words = ["data", "category", "method", "seeds"]
    return [Table("", words, {name: name for name in summary.metrics}, rows)]


def one_metric(summary: Summary, metric: str) -> list[Table]:
    """Per data set, one row per category and one column per method."""
    tables = []
    for data_set in dict.fromkeys(row.data_set for row in summary.rows):
        rows = [row for row in summary.rows if row.data_set == data_set]
        methods = dict.fromkeys(row.method for row in rows if metric in row.values)
        values = {(row.category, row.method): row.values.get(metric, UNKNOWN) for row in rows}
        body = [
            ([category], [values.get((category, method), UNKNOWN) for method in methods])
            for category in dict.fromkeys(row.category for row in rows)
        ]
        title = f"{metric} on {data_set}"
        tables.append(Table(title, ["category"], dict.fromkeys(methods, metric), body))
    return tables


def as_terminal(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Tables as wide as the screen."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 240
    terminal = sys.stdout.isatty()
    console = Console(  # names of settings and categories are no markup
        file=io.StringIO(), width=width, force_terminal=terminal, markup=False, emoji=False
    )
    with console.capture() as capture:
        for table in tables:
            screen = Screen(title=table.title or None)
            for title in (*table.words, *table.metrics):
                screen.add_column(title, overflow="fold")
            for words, line in zip(table.rows, table.lines(" ± ", "{} *"), strict=True):
                style = "bold" if "mean" in words[0] else None
                screen.add_row(*line, style=style)
            console.print(screen)
        text = "\n".join([CAPTION, *notes])
        console.print(text, highlight=False, soft_wrap=True)
    return capture.get()


def as_csv(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Fractions in full precision, with a column ``<title>_std`` beside each; empty: undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for table in tables:
        pairs = [column for title in table.metrics for column in (title, f"{title}_std")]
        writer.writerow([*table.words, *pairs])
        for words, values in table.rows:
            numbers = [number for value in values for number in (value.mean, value.deviation)]
            writer.writerow(
                [
                    *map(harmless, words),
                    *("" if math.isnan(number) else number for number in numbers),
                ]
            )
    return text.getvalue()


def as_markdown(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """Pipe tables with their caption."""
    text = []
    for table in tables:
        titles = [*table.words, *table.metrics]
        lines = [titles, ["---"] * len(titles), *table.lines(" ± ", "**{}**")]
        escaped = [[cell.replace("|", r"\|") for cell in line] for line in lines]
        text += [f"**{table.title}**", ""] if table.title else []
        text += [*(f"| {' | '.join(line)} |" for line in escaped), ""]
    caption = CAPTION.replace("* the best", "bold: the best")
    return "\n".join([*text, f"{caption}.", *(f"{note}." for note in notes), ""])


def as_latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    r"""A ``tabular`` each for the package booktabs; a caption in comments."""
    caption = CAPTION.replace("±", "+-").replace("* the best", "bold: the best")
    text = [f"% {note}" for note in (caption, *notes)]
    for table in tables:
        count = len(table.words)
        rows = [
            [_tex(word) for word in line[:count]] + [f"${cell}$" for cell in line[count:]]
            for line in table.lines(r" \pm ", r"\mathbf{{{}}}")
        ]
        titles = [_tex(title) for title in (*table.words, *table.metrics)]
        head, *body = [" & ".join(line) + r" \\" for line in (titles, *rows)]
        text += [f"% {table.title}"] if table.title else []
        text += [
            rf"\begin{{tabular}}{{{'l' * count}{'c' * len(table.metrics)}}}",
            r"\toprule",
            head,
        ]
        text += [r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*text, ""])


def _tex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


FORMATS: dict[str, Callable[[Sequence[Table], Sequence[str]], str]] = {
    "terminal": as_terminal,
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
}
