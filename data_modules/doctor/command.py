"""`lightning doctor`: checks a data set without training, and says everything at once.

Exit status 0: clean, 1: there are problems, 2: this is not the data set.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from data_modules.base import AnomalyDataModule
from data_modules.doctor.examine import (
    Count,
    Finding,
    count_images,
    coverage,
    duplicates,
    examine_all,
    examined,
    orphans,
)
from data_modules.doctor.extents import Extent, extent_of
from data_modules.doctor.leaks import Leaks, find_leaks, leak_problems, leaks_json
from data_modules.problems import DataError, Problem
from data_modules.reading.remarks import dark, turned

CLEAN, PROBLEMS, NOT_THE_DATA_SET = 0, 1, 2


@dataclass(frozen=True)
class Diagnosis:
    """All that was found: `problems` must be repaired, `notes` are good to know."""

    data: AnomalyDataModule
    counts: list[Count]
    findings: list[Finding]
    leaks: list[Leaks]
    problems: list[Problem]
    notes: list[Problem]

    @property
    def status(self) -> int:
        """Exit status."""
        return PROBLEMS if self.problems else CLEAN

    @cached_property
    def extents(self) -> list[Extent]:
        """What is left of each category's photographs and defects as a network sees them."""
        return [extent_of(name, self.findings, self.data.framing) for name in self.data.categories]

    @property
    def masks(self) -> tuple[int, int]:
        """Numbers of defective images, and of those of them that have a mask file."""
        defective = [finding.record for finding in self.findings if finding.record.label]
        return len(defective), sum(any(m.exists() for m in r.masks) for r in defective)


def main(arguments: Sequence[str]) -> int:
    """Check the data set named on the command line and print what is found; the exit status."""
    parser = ArgumentParser(prog="lightning doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="Print JSON instead of tables.")
    parser.add_subclass_arguments(AnomalyDataModule, "data", required=True)
    options = parser.parse_args(list(arguments))
    try:
        diagnosis = diagnose(parser.instantiate(options).data)
    except DataError as error:
        if options.json:
            _write_json({"exit_status": NOT_THE_DATA_SET, "error": str(error)})
        else:
            Console(stderr=True).print(str(error), style="bold red", markup=False, highlight=False)
        return NOT_THE_DATA_SET
    if options.json:
        _write_json(as_json(diagnosis))
    else:
        show(diagnosis)
    return diagnosis.status


def diagnose(data: AnomalyDataModule) -> Diagnosis:
    """Look at all files of the chosen categories; WrongTreeError if there is nothing to look at."""
    counts = count_images(data)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        found = progress.track(
            examine_all(data, data.framing), len(examined(data)), description="examining"
        )
        findings = list(found)
        leaks = [] if data.only_predicts else _compared(data, findings, progress)
    problems = [problem for finding in findings for problem in finding.problems]
    notes = [note for finding in findings for note in finding.notes]
    further = list(duplicates(findings))
    if data.only_predicts:
        detail = f"to train and to test, {data.tree} are needed"
        notes.append(Problem("photographs for predict alone", data.root, detail))
    else:
        problems += orphans(data)
        further += coverage(data)
        further += [found for category in leaks for found in leak_problems(category, data.root)]
        notes += data.remarks()
    for serious, problem in further:
        (problems if serious else notes).append(problem)
    notes += turned([(each.record.image, each.header) for each in findings if each.header])
    notes += dark([(each.record.image, each.peak) for each in findings], data.framing.white_level)
    notes += _unlike_published(data, counts)
    return Diagnosis(data, counts, findings, leaks, problems, notes)


def _compared(data: AnomalyDataModule, findings: list[Finding], progress: Progress) -> list[Leaks]:
    found = find_leaks(data, findings)
    return list(progress.track(found, len(data.categories), description="comparing"))


def _unlike_published(data: AnomalyDataModule, counts: Sequence[Count]) -> Iterable[Problem]:
    missing = sorted(set(data.published) - set(data.categories))
    if missing and data.category == "all":
        yield Problem("missing categories", data.root, ", ".join(missing))
    for count in counts:
        if count.published is not None and count.images != count.published:
            detail = (
                f"{count.images} images of {count.category} {count.split} {count.defect}, "
                f"published are {count.published}"
            )
            yield Problem("count differs", data.root, detail)


def as_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis as JSON values, with every path."""
    return {
        "data_set": diagnosis.data.data_set,
        "root": str(diagnosis.data.root),
        "exit_status": diagnosis.status,
        "counts": [asdict(count) for count in diagnosis.counts],
        "modes": {c: dict(modes) for c, modes in _by_category(diagnosis, "mode").items()},
        "sizes": {
            category: {f"{width}x{height}": number for (width, height), number in sizes.items()}
            for category, sizes in _by_category(diagnosis, "size").items()
        },
        "seen": [asdict(extent) for extent in diagnosis.extents],
        "leaks": [leaks_json(leaks) for leaks in diagnosis.leaks],
        "defective_images": diagnosis.masks[0],
        "masks": diagnosis.masks[1],
        "problems": [_problem_json(problem) for problem in diagnosis.problems],
        "notes": [_problem_json(note) for note in diagnosis.notes],
    }


def show(diagnosis: Diagnosis) -> None:
    """Print the diagnosis as tables."""
    console = Console(markup=False, emoji=False)  # names of categories and files are no markup
    counts = Table("category", "split", "defect", title=f"{diagnosis.data.data_set}: images")
    for name in ("images", "published"):
        counts.add_column(name, justify="right")
    for count in diagnosis.counts:
        style = None if count.published in (None, count.images) else "yellow"
        published = "" if count.published is None else str(count.published)
        names = (count.category, count.split, count.defect)
        counts.add_row(*names, str(count.images), published, style=style)
    console.print(counts)
    kinds = Table("category", "modes", "sizes", title="pixels")
    sizes = _by_category(diagnosis, "size")
    for category, modes in _by_category(diagnosis, "mode").items():
        shown = ", ".join(f"{mode} ({number})" for mode, number in modes.most_common())
        kinds.add_row(category, shown, _size_range(sizes[category]))
    console.print(kinds)
    _show_extents(console, diagnosis)
    if diagnosis.leaks:
        _show_leaks(console, diagnosis.leaks)
    _show_list(console, "notes", diagnosis.notes, shown=3)
    _show_list(console, "problems", diagnosis.problems, shown=None)
    verdict = f"{len(diagnosis.problems)} problems" if diagnosis.problems else "clean"
    if not diagnosis.data.only_predicts:
        defective, masks = diagnosis.masks
        verdict += f"; {defective} defective images, {masks} masks"
    console.print(verdict, style="bold red" if diagnosis.problems else "bold green")


def _show_extents(console: Console, diagnosis: Diagnosis) -> None:
    """What a network sees, and how it would see more."""
    table = Table("category", "width : height", title="as a network sees them")
    for name in ("scale", "defects", "smaller than a cell of 8x8"):
        table.add_column(name, justify="right")
    for extent in diagnosis.extents:
        counts = (str(extent.defects), str(extent.small)) if extent.defects else ("-", "-")
        ratio = f"{extent.width_over_height:.2f}"
        table.add_row(extent.category, ratio, f"{extent.scale:.2f}", *counts)
    console.print(table)
    for extent in diagnosis.extents:
        for line in extent.advice:
            text = f"{extent.category}: {line}"
            console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)


def _show_leaks(console: Console, leaks: Iterable[Leaks]) -> None:
    columns = ("category", "good test images", "defective", "held-out", "trivial neighbour")
    table = Table(*columns, title="images that show what a training image shows")
    for of in leaks:
        figure = "" if of.neighbour_auroc is None else f"{100 * of.neighbour_auroc:.1f}, "
        counts = (str(of.good), str(of.defective), str(of.held_out))
        style = "yellow" if of.is_leak else None
        table.add_row(of.category, *counts, f"{figure}{of.verdict}", style=style)
    console.print(table)


def _show_list(console: Console, title: str, found: list[Problem], shown: int | None) -> None:
    """A heading per kind, then whole lines: a table would cut long paths."""
    by_kind = defaultdict(list)
    for problem in found:
        by_kind[problem.kind].append(problem)
    for kind, group in by_kind.items():
        console.print(f"{title}: {kind} ({len(group)})", style="bold", highlight=False)
        lines = [f"  {problem.path}: {problem.detail}" for problem in group[:shown]]
        if len(group) > len(lines):
            lines.append(f"  ... and {len(group) - len(lines)} more (--json lists all)")
        console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _size_range(sizes: Counter[tuple[int, int]]) -> str:
    readable = sorted(size for size in sizes if size != (0, 0))
    if len(readable) < 2:
        return "".join(f"{width}x{height}" for width, height in readable)
    widths, heights = zip(*readable, strict=True)
    return (
        f"{len(readable)} sizes, widths {min(widths)}-{max(widths)}, "
        f"heights {min(heights)}-{max(heights)}"
    )


def _by_category(diagnosis: Diagnosis, attribute: str) -> dict[str, Counter[Any]]:
    counters: dict[str, Counter[Any]] = {name: Counter() for name in diagnosis.data.categories}
    for finding in diagnosis.findings:
        counters[finding.record.category][getattr(finding, attribute)] += 1
    return counters


def _problem_json(problem: Problem) -> dict[str, str]:
    return {"kind": problem.kind, "path": str(problem.path), "detail": problem.detail}


def _write_json(content: dict[str, Any]) -> None:
    json.dump(content, sys.stdout, indent=2)
    sys.stdout.write("\n")
