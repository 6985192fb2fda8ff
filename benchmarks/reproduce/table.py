"""The results as Markdown, from what the cells wrote; nothing in it is typed."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.reproduce.cells import VALUE, Cell, Part

METRICS = {
    "image_auroc": "image AUROC",
    "image_auprc": "image AUPRC",
    "pixel_auroc": "pixel AUROC",
    "pixel_auprc": "pixel AUPRC",
    "pixel_aupro": "AUPRO",
}
METHODS = {
    "d3ad": "D3AD",
    "ddad": "DDAD",
    "deco": "DeCo-Diff",
    "texture": "texture DDM",
    "feature": "FeatureDiffusion",
    "patchcore": "PatchCore",
    "padim": "PaDiM",
    "simplenet": "SimpleNet",
    "draem": "DRAEM",
}
PUBLISHED = {
    ("ddad", Part("mvtec", "bottle")): "100 image AUROC, 98.7 pixel AUROC, 91.8 AUPRO",
    ("ddad", Part("mvtec", "screw")): "99.0 image AUROC; users of the authors' checkpoint got 96.5",
    ("ddad", Part("mtd", "published")): "98.3 image AUROC",
}
"""What the methods' authors report (DDAD: arXiv 2305.15956), trained for hours on a GPU."""

Found = dict[str, Any]
"""What a cell's record holds, see `worker.run`; `command` and `hardware` added."""


def markdown(found: dict[Cell, Found], neighbours: dict[Part, float | None]) -> str:
    """All tables: the scores of each part, then what each run took, then the commands."""
    parts = sorted({cell.part for cell in found})
    methods = sorted({cell.method for cell in found}, key=VALUE.index)
    machines = dict.fromkeys(content["hardware"] for content in found.values())
    minutes = sum(content.get("seconds", 0.0) for content in found.values()) / 60
    blocks = [
        f"By `python -m benchmarks.reproduce` on {'; '.join(machines) or 'nothing yet'}: "
        f"{minutes:.0f} minutes for all runs. Metrics are in percent, those of several seeds as "
        "mean ± deviation. What is published was trained for hours on a GPU."
    ]
    for part in parts:
        rows = {m: _of(found, m, part) for m in methods if _of(found, m, part)}
        blocks += [f"### {part.title}", _scores(part, rows, neighbours.get(part))]
    return "\n\n".join([*blocks, "### What the runs took", _costs(found), _failures(found)]).strip()


def _of(found: dict[Cell, Found], method: str, part: Part) -> list[Found]:
    return [
        content for cell, content in found.items() if (cell.method, cell.part) == (method, part)
    ]


def _scores(part: Part, rows: dict[str, list[Found]], neighbour: float | None) -> str:
    lines = [
        [
            METHODS[method],
            *(_mean([c["metrics"].get(f"test/mean/{key}") for c in cells]) for key in METRICS),
            PUBLISHED.get((method, part), ""),
        ]
        for method, cells in ((m, [c for c in r if "metrics" in c]) for m, r in rows.items())
    ]
    trivial = ["nearest neighbour on 16 x 16 grey pixels", _mean([neighbour])]
    lines.append([*trivial, *[""] * (len(METRICS) - 1), "what needs no learning"])
    return _table(["method", *METRICS.values(), "published"], lines)


def _mean(values: Iterable[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f}{deviation}"


def _costs(found: dict[Cell, Found]) -> str:
    head = [
        "run", "images trained", "training, min", "all, min", "scored images/s", "peak memory, GB",
        "training's share of the matrix rate", "precision", "fingerprint", "command",
    ]  # fmt: skip
    lines = [
        [cell.name, *_cost(content), f"`{content['command']}`"]
        for cell, content in found.items()
        if "metrics" in content
    ]
    return _table(head, lines)


def _cost(content: Found) -> list[str]:
    metrics = content["metrics"]
    like = content.get("matrix_precision", "32-true") == content["precision"]
    share = content["flops"] / content["matrix_rate"] if "flops" in content and like else None
    return [
        f"{content['trained_images']:,}",
        f"{content['trained_seconds'] / 60:.1f}",
        f"{content['seconds'] / 60:.1f}",
        f"{metrics['test/images_per_second']:.1f}",
        f"{content['memory'] / 2**30:.1f}",
        "-" if share is None else f"{100 * share:.0f} %",
        content["precision"],
        metrics["fingerprint"],
    ]


def _failures(found: dict[Cell, Found]) -> str:
    failed = [f"- {cell.name}: {c['error']}" for cell, c in found.items() if "error" in c]
    return "\n".join(["### What failed", "", *failed]) if failed else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    right = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, right, *rows))
