"""``lightning export``: a final checkpoint as one file that runs without this program."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from lightning_ad.commands.paths import path
from lightning_ad.deployment.export import DEFECTS, Order, export
from lightning_ad.deployment.formats import FORMATS, OPSETS

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> None:
    """Write the file, its card, and a script that runs it."""
    parser = argparse.ArgumentParser(
        prog="lightning export",
        description="Write a final checkpoint as one file that takes 8-bit images and gives maps, "
        "scores and verdicts. It is compared with the detector on normal images and pasted defects "
        "first, and not written if it differs.",
    )
    parser.add_argument("--ckpt_path", required=True, type=path, metavar="FINAL.CKPT")
    parser.add_argument("--format", default="onnx", choices=list(FORMATS))
    parser.add_argument(
        "--output", type=path, metavar="FILE", help="model.onnx or model.pt2 beside the checkpoint"
    )
    parser.add_argument(
        "--opset",
        type=int,
        default=20,
        help=f"version of ONNX's operators, {OPSETS[0]} to {OPSETS[-1]} (default: 20)",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=list(DEFECTS),
        help="fp16 and int8 are for --format onnx, and may cost 0.2 points of AUROC",
    )
    parser.add_argument("--category", help="that all images will be of; else it is found out")
    parser.add_argument(
        "--images",
        type=path,
        metavar="FOLDER",
        help="normal photographs to compare on; else those that calibrated the checkpoint",
    )
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE")
    options = vars(parser.parse_args(arguments))
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)  # less is what could not be folded
    checkpoint = options.pop("ckpt_path")
    output = options.pop("output") or _beside(checkpoint, options["format"])
    parity = export(Order(checkpoint=checkpoint, output=output, **options))
    log.info("%s: %s", output, parity)


def _beside(checkpoint: Path, kind: str) -> Path:
    return checkpoint.with_name(f"model{FORMATS[kind].suffix}")
