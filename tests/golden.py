"""Recorded numbers of the authors' code, and the weights of the networks that made them."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_ad.networks import ContextUNet, DiffusionUNet
from lightning_ad.networks.authors_weights import Method, convert, denoiser_for


def golden_arrays(shared: Path, name: str) -> dict[str, Tensor]:
    """Arrays of one recorded case as tensors, without its remarks."""
    with np.load(shared / "golden" / f"{name}.npz") as file:
        arrays = {key: value for key, value in file.items() if value.dtype.kind != "U"}
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def authors_weights(keys_json: Path) -> dict[str, Tensor]:
    """State dict of an authors' network, filled by the recording's rule from its keys' names."""
    shapes: dict[str, list[int]] = json.loads(keys_json.read_text())
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def golden_denoiser(shared: Path, method: Method) -> DiffusionUNet | ContextUNet:
    """Our network with the weights of the recording, through the importer, in eval mode."""
    state = authors_weights(shared / "golden" / f"{method}_unet_keys.json")
    denoiser = denoiser_for(method, state)
    denoiser.load_state_dict(convert(method, state, denoiser))
    return denoiser.eval()


def _weight(name: str, shape: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    r = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return r / r[0].numel() ** 0.5
    return 1 + 0.1 * r if name.endswith("weight") else 0.1 * r
