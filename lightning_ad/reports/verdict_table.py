"""What a test or a prediction says at its end about its verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from lightning_ad.metrics.verdicts import ALL, Verdicts


def verdicts_table(verdicts: Mapping[str, Verdicts], remarks: Sequence[str]) -> Table:
    """Return a rich table with a row per category; kinds of defects stand below a single one."""
    hidden = verdicts[ALL].not_judged
    if hidden:
        outside = f"{hidden} not judged: their defects lie outside of the region of interest"
        remarks = [*remarks, outside]
    table = Table(title="Verdicts", caption="\n".join(remarks), caption_justify="left")
    table.add_column("category", overflow="fold")
    for heading in ("good\npassed", "false alarms in percent\n(95 % interval)", "defects\nfound"):
        table.add_column(heading, justify="right")
    categories = [name for name in verdicts if name != ALL]
    for name in categories:
        table.add_row(name, *_cells(verdicts[name]))
    if len(categories) > 1:
        table.add_section()
        table.add_row(ALL, *_cells(verdicts[ALL]), style="bold")
    else:
        for kind, number in sorted(verdicts[ALL].defective.items()):
            table.add_row(f"  {kind}", "", "", _of(verdicts[ALL].found[kind], number))
    return table


def flagged(counts: Mapping[tuple[str, str | None], int]) -> list[str]:
    """Lines such as "5 of 83 flagged" from the number of images by category and verdict.

    One for all, then, of several categories, one for each; none without verdicts.
    """
    total: Counter[str] = Counter()
    anomalous: Counter[str] = Counter()
    for (category, verdict), number in sorted(counts.items(), key=lambda item: item[0][0]):
        for name in (ALL, category) if verdict is not None else ():
            total[name] += number
            anomalous[name] += number * (verdict == "anomalous")
    lines = [f"{_of(anomalous[name], number)} flagged" for name, number in total.items()]
    names = ["", *(f"{name}: " for name in list(total)[1:])] if len(total) > 2 else [""]
    return [name + line for name, line in zip(names, lines, strict=False)]


def _cells(verdicts: Verdicts) -> Sequence[Any]:
    seen = "-"
    if verdicts.good:
        low, high = (100 * limit for limit in verdicts.false_alarms)
        share = 100 * (1 - verdicts.passed / verdicts.good)
        seen = f"{share:.1f} ({low:.1f} to {high:.1f})"
    return (
        _of(verdicts.passed, verdicts.good),
        seen,
        _of(verdicts.found.total(), verdicts.defective.total()),
    )


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "-"
