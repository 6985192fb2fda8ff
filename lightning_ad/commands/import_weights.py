"""``lightning import``: the authors' published checkpoints as ones that `fit` can start from."""

import argparse
import logging
from collections.abc import Sequence

import torch
from torch import nn

from data_modules.reading.store import written_whole
from lightning_ad.commands.paths import path
from lightning_ad.networks.authors_weights import denoiser_for, import_denoiser, read_checkpoint
from lightning_ad.networks.context_unet import ContextUNet

log = logging.getLogger(__name__)

METHOD_CLASSES = {"ddad": "DDAD", "d3ad": "D3AD", "deco": "DeCoDiff", "invad": "InvAD"}
"""Our class of each method whose authors published checkpoints."""

DECO_CATEGORIES = {
    15: (  # MVTec AD
        "capsule", "bottle", "grid", "leather", "metal_nut", "tile", "transistor", "zipper",
        "cable", "carpet", "hazelnut", "pill", "screw", "toothbrush", "wood",
    ),
    12: (  # VisA
        "candle", "cashew", "fryum", "macaroni2", "pcb2", "pcb4",
        "capsules", "chewinggum", "macaroni1", "pcb1", "pcb3", "pipe_fryum",
    ),
}  # fmt: skip
"""Categories of DeCo-Diff's published models in the order of their class ids, by their number."""


def main(arguments: Sequence[str]) -> None:
    """Write an authors' file as a checkpoint that `fit` can start from."""
    parser = argparse.ArgumentParser(
        prog="lightning import",
        description="Turn the authors' checkpoint into one of lightning_ad: the trained denoiser, "
        "from which 'lightning fit --config ... --ckpt_path OUTPUT' goes on with the next phase.",
    )
    parser.add_argument("--method", required=True, choices=list(METHOD_CLASSES))
    parser.add_argument("--checkpoint", required=True, type=path, metavar="FILE")
    parser.add_argument("--output", required=True, type=path, metavar="FILE")
    parser.add_argument(
        "--categories",
        nargs="+",
        metavar="NAME",
        help="deco: the categories in the order of the file's class ids; known for the published "
        "models of MVTec AD and VisA",
    )
    options = parser.parse_args(arguments)
    try:
        denoiser = denoiser_for(options.method, read_checkpoint(options.checkpoint))
        import_denoiser(options.method, options.checkpoint, denoiser)
        categories = _categories_of(denoiser, options.categories)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"lightning import: {options.checkpoint}: {error}") from error
    weights = {f"denoiser.{name}": value for name, value in denoiser.state_dict().items()}
    checkpoint = {
        "method": METHOD_CLASSES[options.method],
        "categories": categories,
        "state_dict": weights,
    }
    with written_whole(options.output) as partial:
        torch.save(checkpoint, partial)
    log.info("%s holds %d tensors of %s", options.output, len(weights), checkpoint["method"])


def _categories_of(denoiser: nn.Module, given: list[str] | None) -> list[str]:
    """The categories that a network's class ids stand for; none where the data's will do."""
    classes = denoiser.categories if isinstance(denoiser, ContextUNet) else 0
    if given:
        if len(given) != classes:
            raise ValueError(f"--categories names {len(given)}, the network has {classes} classes")
        return given
    if classes > 1 and classes not in DECO_CATEGORIES:
        log.warning(
            "the file does not name its %d classes: they are taken for the data's categories in "
            "alphabetical order; if that is wrong, name them with --categories",
            classes,
        )
    return list(DECO_CATEGORIES.get(classes, []))
