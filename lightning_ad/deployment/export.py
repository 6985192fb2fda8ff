"""A final checkpoint as a file that runs elsewhere, written only if it gives the same numbers."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_modules.reading.framing import Framing
from data_modules.reading.store import make_folder, written_whole
from lightning_ad.deployment.card import card_of
from lightning_ad.deployment.formats import FORMATS, OPSETS, require_packages
from lightning_ad.deployment.graph import program_of
from lightning_ad.deployment.parity import (
    Parity,
    compared,
    require_equal,
    scored_by_detector,
    scored_by_file,
)
from lightning_ad.deployment.precision import reduce
from lightning_ad.deployment.resizing import can_resize, difference_of, write_resize
from lightning_ad.deployment.samples import photographs, samples
from lightning_ad.deployment.scorer import load
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.region import BY_IMAGE, kept_region
from lightning_ad.reports.files import write_json

log = logging.getLogger(__name__)

Precision = Literal["float32", "fp16", "int8"]

DEFECTS = {"float32": 1, "fp16": 5, "int8": 5}
"""Defective copies of each image that files of a precision are compared on: an AUROC needs many."""


@dataclass(frozen=True)
class Order:
    """What is to be exported.

    Args:
        checkpoint: a run's final.ckpt.
        output: the file to write; its card lies beside it and, for ONNX, a script that runs it and
            a file that resizes photographs for it.
        format: ``onnx``, or ``torch`` for a program of torch.export.
        opset: version of ONNX's operators.
        precision: of weights and products.
        category: that all images will be of; None where it is the only one, or not known.
        images: folder of normal photographs to compare on; None takes those that calibrated.
        trust: packages whose classes the checkpoint may name.
    """

    checkpoint: Path
    output: Path
    format: Literal["onnx", "torch"] = "onnx"
    opset: int = 20
    precision: Precision = "float32"
    category: str | None = None
    images: Path | None = None
    trust: Sequence[str] = ()


def export(order: Order) -> Parity:
    """Write the file that an `Order` describes, and how it differs from its detector.

    Raises:
        ParityError: if it differs by more than is promised; nothing is written then.
        ValueError: for what cannot be exported, with the reason.
        OSError: if the file cannot be written, before anything is computed.
    """
    _check(order)
    loaded = load(order.checkpoint, order.trust)
    detector, number = loaded.detector, _number(loaded.detector, order.category)
    threshold = _exportable(detector, number)
    files = photographs(order.images, loaded.config, order.category)
    pixels, defective, window = samples(files, detector.known_framing, DEFECTS[order.precision])
    expected, draws = scored_by_detector(detector, pixels, number, threshold, window)
    log.info("tracing %s: minutes where a sampler takes many steps", type(detector).__name__)
    made: dict[str, Any] = {
        "file": order.output.name,
        "format": order.format,
        "precision": order.precision,
    }
    if order.format == "onnx":
        made["opset"] = order.opset
    card = card_of(order.checkpoint, loaded, number, draws, window, made)
    kind = FORMATS[order.format]
    with written_whole(order.output) as partial:
        program = program_of(detector, number, draws, window, kind.call)
        kind.write(program, partial, threshold, order.opset)
        if order.precision != "float32":
            reduce(partial, order.precision, pixels[:: 1 + DEFECTS[order.precision]], draws)
        found = scored_by_file(kind.load(partial), pixels, threshold, draws)
        parity = compared(expected, found, threshold, defective)
        require_equal(parity, order.precision)
    about = {**card, "parity": parity.as_dict()}
    if order.format == "onnx":
        about["resize"] = _beside(order, detector.known_framing, files)
    write_json(order.output.with_suffix(".json"), about)
    return parity


def _beside(order: Order, framing: Framing, photographs: Sequence[Path]) -> dict[str, Any] | None:
    """Write what a file for ONNX Runtime is run with; how it resizes, if it can."""
    for script in ("score.py", "prepare.py"):
        shutil.copyfile(Path(__file__).with_name(script), order.output.with_name(script))
    if not can_resize(framing):
        return None
    file = order.output.with_name("resize.onnx")
    with written_whole(file) as partial:
        write_resize(framing, partial, order.opset)
        return {"file": file.name, **difference_of(partial, framing, photographs).as_dict()}


def _check(order: Order) -> None:
    """Refuse what cannot come out well before anything is loaded."""
    if order.format == "onnx" and order.opset not in OPSETS:
        raise ValueError(
            f"--opset {order.opset} is not supported: choose {OPSETS[0]} to {OPSETS[-1]}"
        )
    if order.format != "onnx" and order.precision != "float32":
        raise ValueError(f"--precision {order.precision} is for --format onnx")
    suffix = FORMATS[order.format].suffix
    if order.output.suffix != suffix:
        raise ValueError(f"--output {order.output}: a file of this format ends in {suffix}")
    require_packages(FORMATS[order.format].packages, "export")
    make_folder(order.output.parent)
    probe = order.output.with_name(f"{order.output.name}.partial")
    probe.touch()
    probe.unlink()


def _number(detector: AnomalyDetector, category: str | None) -> int:
    if category is None and len(detector.categories) == 1:
        return 0
    return detector.number_of(category)


def _exportable(detector: AnomalyDetector, number: int) -> float:
    """The threshold of a category, if such a detector can be exported."""
    if detector.protocol.startswith("as published"):
        raise ValueError(
            f"{type(detector).__name__} scores an image by the images tested with it, as its "
            "authors do, and no file can: export a run of the method itself"
        )
    if detector.takes_whole:
        raise ValueError(
            "a detector in tiles takes photographs of any size, a graph takes one: export a run "
            "without --tiles, and cut photographs into tiles before it"
        )
    if kept_region(detector.calibration, detector.categories) or BY_IMAGE in detector.calibration:
        raise ValueError(
            "data.roi lets only a part of each image count, which no file says: export a run "
            "without it"
        )
    if "image_threshold" not in detector.calibration:
        raise ValueError("the checkpoint is not calibrated: finish 'lightning fit'")
    if "16" in detector.precision:
        log.warning(
            "the checkpoint scores in %s, the file in float32 as 'lightning predict "
            "--trainer.precision=32-true' does: a verdict near the threshold may differ",
            detector.precision,
        )
    detector.precision = "32-true"
    return float(detector.calibration["image_threshold"][number])
