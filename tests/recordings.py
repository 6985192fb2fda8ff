"""Numbers recorded from the authors' codes, what was put in, and the weights of their networks.

`tests/golden/README.md` says where the recordings come from and by which rules the rest is made.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ad.networks import ContextUNet, DiffusionUNet
from lightning_ad.networks.authors_weights import Method, convert, denoiser_for

GOLDEN = Path(__file__).parent / "golden"
Arrays = dict[str, Tensor]


def recorded(case: str) -> Arrays:
    """What one case was given, and what the authors' code made of it."""
    with np.load(GOLDEN / f"{case}.npz") as file:
        made = {name: torch.from_numpy(values) for name, values in file.items()}
    return INPUTS.get(case, dict)() | made


def every_fourth(pixels: Tensor) -> Tensor:
    """The pixels (..., H / 4, W / 4) of which recordings of (..., H, W) consist."""
    return pixels[..., ::4, ::4]


def authors_weights(method: Method) -> Arrays:
    """State dict of the authors' network, filled by the recording's rule from its keys' names."""
    shapes = json.loads((GOLDEN / f"{method}_unet_keys.json").read_text())
    return {name: _weight(name, shape) for name, shape in shapes.items()}


@cache
def authors_denoiser(method: Method) -> DiffusionUNet | ContextUNet:
    """Our network with the weights of the recording, through the importer; not to be changed."""
    state = authors_weights(method)
    denoiser = denoiser_for(method, state)
    denoiser.load_state_dict(convert(method, state, denoiser))
    return denoiser.eval().requires_grad_(False)


def fill_baseline(module: nn.Module, names: Mapping[str, str] | None = None) -> None:
    """Give a baseline's network the recording's weights; ``names`` are the authors' of its own."""
    state = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = _baseline_weight((names or {}).get(name, name), list(value.shape))
    module.load_state_dict(state)


def _baseline_weight(name: str, shape: list[int]) -> Tensor:
    r = _normal(zlib.crc32(name.encode()) & 0x7FFFFFFF, *shape)
    if len(shape) > 1:
        return r * (2 / r[0].numel()) ** 0.5
    return 1 + 0.1 * r if name.endswith(("weight", "running_var")) else 0.1 * r


def _weight(name: str, shape: list[int]) -> Tensor:
    r = _normal(zlib.crc32(name.encode()) & 0x7FFFFFFF, *shape)
    if len(shape) > 1:
        return r / r[0].numel() ** 0.5
    return 1 + 0.1 * r if name.endswith("weight") else 0.1 * r


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pyramids(*sides: int) -> Arrays:
    """Layers f1, f2, f3 of two images, and g1, g2, g3 that resemble them; 0 leaves a layer out."""
    layers: Arrays = {}
    for i, side in enumerate(sides):
        if side:
            shape = 2, 32 << i, side, side
            layers[f"f{i + 1}"] = _normal(1030 + i, *shape)
            layers[f"g{i + 1}"] = layers[f"f{i + 1}"] + 0.5 * _normal(1040 + i, *shape)
    return layers


def _ddad_unet() -> Arrays:
    return {"x": _normal(1001, 2, 3, 64, 64), "t": torch.tensor([3, 217])}


def _ddad_reconstruction() -> Arrays:
    """The first of the two images that were recorded."""
    noises = torch.stack([_normal(1010 + i, 2, 3, 64, 64)[:1] for i in range(11)])
    x, y = (_normal(seed, 2, 3, 64, 64)[:1].tanh() for seed in (1002, 1003))
    return {"x": x, "y": y, "noises": noises}


def _ddad_maps() -> Arrays:
    target = _normal(1050, 2, 3, 64, 64).tanh()
    reconstruction = (target + 0.3 * _normal(1051, 2, 3, 64, 64)).tanh()
    return {"target": target, "reconstruction": reconstruction, **_pyramids(16, 8, 4)}


def _ddad_adaptation_loss() -> Arrays:
    layers = _pyramids(16, 8, 4)
    arrays: Arrays = {}
    for i in (1, 2, 3):
        for name, layer, seed in (("target", f"f{i}", 1059), ("recon", f"g{i}", 1069)):
            arrays[f"{name}{i}"] = layers[layer]
            change = 0.1 * _normal(seed + i, *layers[layer].shape)
            arrays[f"frozen_{name}{i}"] = layers[layer] + change
    return arrays


def _ddad_training_loss() -> Arrays:
    noise = _normal(1080, 2, 3, 64, 64)
    return {"x": _normal(1002, 2, 3, 64, 64).tanh(), "t": torch.tensor([10, 700]), "noise": noise}


def _d3ad_unet() -> Arrays:
    return {"x": _normal(1001, 2, 4, 32, 32), "t": torch.tensor([3, 60])}


def _d3ad_dynamic_steps() -> Arrays:
    return {"train": _normal(1003, 120, 64).abs()}


def _d3ad_reconstruction() -> Arrays:
    """The first and the last of the four images that were recorded."""
    return {"z": _normal(1007, 4, 4, 32, 32)[::3], "T": torch.tensor([20, 80])}


def _d3ad_maps() -> Arrays:
    z = _normal(1050, 2, 4, 32, 32)
    return {"z": z, "z_hat": z + 0.3 * _normal(1051, 2, 4, 32, 32), **_pyramids(0, 32, 16)}


def _deco_unet() -> Arrays:
    x, t = _normal(1001, 2, 4, 32, 32), torch.tensor([3, 7])
    return {"x": x, "t": t, "classes": torch.tensor([1, 4])}


def _deco_training() -> Arrays:
    kept = (_normal(1003, 2, 1, 32, 32) > 0).float()
    return {"mask": kept, "noise": _normal(1002, 2, 4, 32, 32), **_deco_unet()}


def _deco_maps() -> Arrays:
    x0 = _normal(1020, 2, 3, 256, 256).tanh().half().float()
    x_hat = (x0 + 0.2 * _normal(1021, 2, 3, 256, 256)).clamp(-1, 1).half().float()
    z0 = _normal(1022, 2, 4, 32, 32)
    z_hat = z0 + 0.1 * _normal(1023, 2, 4, 32, 32)
    return {"x0": x0, "x_hat": x_hat, "z0": z0, "z_hat": z_hat}


INPUTS: dict[str, Callable[[], Arrays]] = {
    "ddad_unet": _ddad_unet,
    "ddad_reconstruction": _ddad_reconstruction,
    "ddad_maps": _ddad_maps,
    "ddad_adaptation_loss": _ddad_adaptation_loss,
    "ddad_training_loss": _ddad_training_loss,
    "d3ad_unet": _d3ad_unet,
    "d3ad_dynamic_steps": _d3ad_dynamic_steps,
    "d3ad_reconstruction": _d3ad_reconstruction,
    "d3ad_maps": _d3ad_maps,
    "deco_unet": _deco_unet,
    "deco_training": _deco_training,
    "deco_correction": _deco_unet,
    "deco_maps": _deco_maps,
}
"""How the input of each case is made; those of the baselines are recorded."""
