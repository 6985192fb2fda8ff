"""``lightning benchmark``: how fast a checkpoint scores here, in each way to run it."""

import argparse
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_ad.commands.paths import path
from lightning_ad.deployment.benchmark import Speed, ways
from lightning_ad.reports.machine import circumstances


def main(arguments: Sequence[str]) -> None:
    """Print a row for each way, as it is measured."""
    parser = argparse.ArgumentParser(
        prog="lightning benchmark",
        description="Time the scoring of images that are in memory: float32, bfloat16, compiled, "
        "and the exported file. Compare within one run only.",
    )
    parser.add_argument("--ckpt_path", required=True, type=path, metavar="FINAL.CKPT")
    parser.add_argument(
        "--model", type=path, metavar="FILE", help="exported; model.onnx beside the checkpoint"
    )
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each way and batch")
    options = parser.parse_args(arguments)
    exported = options.model or options.ckpt_path.with_name("model.onnx")
    speeds = list(ways(options.ckpt_path, exported, options.device, options.seconds))
    found = circumstances(torch.device(options.device))
    Console().print(_table(speeds, f"{found['device']}, {found['cores']} cores"))


def _table(speeds: list[Speed], where: str) -> Table:
    table = Table(caption=Text(f"{where}; ratios are of 8 images at once"))
    table.add_column("way")
    for name in ("ms, 1 image", "ms, 8 images", "images/s", "x float32", "memory MB"):
        table.add_column(name, justify="right")
    first = speeds[0].seconds.get(8)
    for speed in speeds:
        if speed.failure:
            table.add_row(speed.way, Text(speed.failure))
            continue
        one, eight = speed.seconds[1], speed.seconds[8]
        table.add_row(
            speed.way,
            f"{1000 * one:.1f}",
            f"{1000 * eight:.1f}",
            f"{8 / eight:.1f}",
            f"{first / eight:.2f}" if first else "",
            "" if speed.memory is None else f"{speed.memory:.0f}",
        )
    return table
