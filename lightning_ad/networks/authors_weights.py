"""The published checkpoints of DDAD, D3AD, DeCo-Diff and InvAD as weights of our denoisers.

Both families of U-Nets are computed exactly by diffusers; only the names differ, and the pixel
U-Net keeps queries, keys and values of an attention in one tensor. A place in the authors' network
(``down.4.1``) is paired with one in ours by walking ours in the order in which theirs is numbered.
InvAD's transformer has the names of ours.
"""

import argparse
import math
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.serialization import safe_globals

from lightning_ad.networks.context_unet import SIZES, ContextUNet
from lightning_ad.networks.feature_dit import FeatureDiT
from lightning_ad.networks.unet import DiffusionUNet

Method = Literal["ddad", "d3ad", "deco", "invad"]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Naming:
    """Names in an authors' network: of its parts, and of the layers inside a block."""

    time: tuple[str, str]
    down: str
    middle: str
    up: str
    layers: dict[str, str]


RESIDUAL_LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
PIXEL = Naming(
    ("time_embedding.1", "time_embedding.3"),
    "down",
    "middle",
    "up",
    RESIDUAL_LAYERS
    | {"embed_layers.1": "time_emb_proj", "norm": "group_norm", "proj_out": "to_out.0"},
)
LATENT_DIFFUSION = Naming(
    ("time_embed.0", "time_embed.2"),
    "input_blocks",
    "middle_block",
    "output_blocks",
    RESIDUAL_LAYERS | {"emb_layers.1": "time_emb_proj", "op": "conv"},
)


NEVER_CALLED = ("cls_embed.", "net.y_embedder.", "net.x_embedder_linear.")
"""Parts of InvAD's published files that its authors' detector has no use for: classes, tokens."""

INVAD_HEADS = 8
"""Of each attention, by the default of the authors' code, which none of their settings changes."""


def import_denoiser(method: Method, checkpoint: Path, denoiser: nn.Module) -> None:
    """Fill our denoiser with the weights of the authors' file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds other things than weights, or not this network's; all unknown and
            missing keys and all shapes that differ are listed.
    """
    state = convert(method, read_checkpoint(checkpoint), denoiser)
    ours = denoiser.state_dict()
    unknown = sorted(state.keys() - ours.keys())
    missing = sorted(ours.keys() - state.keys())
    shapes = [
        f"{key} {tuple(state[key].shape)} where the denoiser has {tuple(ours[key].shape)}"
        for key in ours
        if key in state and state[key].shape != ours[key].shape
    ]
    if unknown or missing or shapes:
        raise ValueError(
            f"{checkpoint} does not fit the configured denoiser as a checkpoint of {method}."
            f" Unknown keys: {unknown}. Missing keys: {missing}. Other shapes: {shapes}."
            " Set the denoiser's widths and levels as the authors did"
        )
    denoiser.load_state_dict(state)


def denoiser_for(method: Method, state: State) -> DiffusionUNet | ContextUNet | FeatureDiT:
    """Denoiser of ours whose settings are read off the shapes in the authors' weights."""
    try:
        if method == "invad":
            return _feature_dit(state)
        return _context_unet(state) if method == "deco" else _unet(method, state)
    except (KeyError, ValueError) as error:
        reason = str(error)
        if isinstance(error, KeyError):
            more = max(0, len(state) - 5)
            reason = f"key {error} is missing, there are {sorted(state)[:5]} and {more} more"
        raise ValueError(
            f"these are not the weights of a denoiser of {method}: {reason}"
        ) from error


def read_checkpoint(checkpoint: Path) -> State:
    """Authors' weights by their own names, without wrappers; nothing in the file is executed."""
    if not checkpoint.is_file():
        raise FileNotFoundError(f"no checkpoint {checkpoint}")
    try:
        with safe_globals([argparse.Namespace]):  # DeCo-Diff keeps its options beside the weights
            content: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds a Python object, {refused[1]}" if refused else "no PyTorch file"
        raise ValueError(
            f"{checkpoint} cannot be read as weights alone: {reason}. If you trust its source, load"
            " it where it was made and save only the state dict with torch.save"
        ) from error
    content = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{checkpoint} does not hold a state dict (names with tensors)")
    return {key.removeprefix("module."): value for key, value in content.items()}


def convert(method: Method, state: State, denoiser: nn.Module) -> State:
    """Rename the authors' weights to the denoiser's; names that are unknown stay as they are.

    Raises:
        ValueError: if the denoiser is of another family than the method's.
    """
    if method == "invad" and isinstance(denoiser, FeatureDiT):
        return feature_dit_state_dict(state)
    if method == "deco" and isinstance(denoiser, ContextUNet):
        return context_unet_state_dict(state, denoiser)
    if method in ("ddad", "d3ad") and isinstance(denoiser, DiffusionUNet):
        return unet_state_dict(state, denoiser)
    raise ValueError(f"the authors' denoiser of {method} is not a {type(denoiser).__name__}")


def unet_state_dict(authors: State, denoiser: DiffusionUNet) -> State:
    """Weights of DDAD's or D3AD's authors by the names of a :class:`DiffusionUNet`."""
    places = dict(_places(denoiser.unet, PIXEL))
    attentions = {n: m.heads for n, m in denoiser.named_modules() if isinstance(m, Attention)}
    ours: State = {}
    for key, value in authors.items():
        name = _rename(key, places, PIXEL.layers)
        block, _, kind = name.rpartition(".to_qkv.")
        if block in attentions and len(value) % (3 * attentions[block]) == 0:
            for part, rows in zip("qkv", _split_by_head(value, attentions[block]), strict=True):
                ours[f"{block}.to_{part}.{kind}"] = rows
        else:
            ours[name] = value.squeeze(-1) if ".to_out.0.weight" in name else value
    return ours


def context_unet_state_dict(authors: State, denoiser: ContextUNet) -> State:
    """Weights of DeCo-Diff's authors by the names of a :class:`ContextUNet`."""
    places = dict(_places(denoiser.unet, LATENT_DIFFUSION))
    places["cond_stage_model.embedding"] = "embedding"
    return {_rename(key, places, LATENT_DIFFUSION.layers): v for key, v in authors.items()}


def feature_dit_state_dict(authors: State) -> State:
    """Weights of InvAD's authors by the names of a :class:`FeatureDiT`."""
    called = {key: value for key, value in authors.items() if not key.startswith(NEVER_CALLED)}
    return {key.removeprefix("net."): value for key, value in called.items()}


def _places(unet: Any, naming: Naming) -> Iterator[tuple[str, str]]:
    """Pairs of a block's place in the authors' network and in ours."""
    yield naming.time[0], "unet.time_embedding.linear_1"
    yield naming.time[1], "unet.time_embedding.linear_2"
    yield f"{naming.down}.0.0", "unet.conv_in"
    entry = 1
    for level, block in enumerate(unet.down_blocks):
        for index in range(len(block.resnets)):
            yield from _pair(naming.down, entry, block, f"unet.down_blocks.{level}", index)
            entry += 1
        if block.downsamplers:  # an entry of its own
            yield f"{naming.down}.{entry}.0", f"unet.down_blocks.{level}.downsamplers.0"
            entry += 1
    for index, ours in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        yield f"{naming.middle}.{index}", f"unet.mid_block.{ours}"
    entry = 0
    for level, block in enumerate(unet.up_blocks):
        for index in range(len(block.resnets)):
            yield from _pair(naming.up, entry, block, f"unet.up_blocks.{level}", index)
            entry += 1
        if block.upsamplers:  # the last module of the level's last entry
            position = 2 if hasattr(block, "attentions") else 1
            yield f"{naming.up}.{entry - 1}.{position}", f"unet.up_blocks.{level}.upsamplers.0"
    yield "out.0", "unet.conv_norm_out"
    yield "out.2", "unet.conv_out"


def _pair(
    part: str, entry: int, block: nn.Module, ours: str, index: int
) -> Iterator[tuple[str, str]]:
    yield f"{part}.{entry}.0", f"{ours}.resnets.{index}"
    if hasattr(block, "attentions"):
        yield f"{part}.{entry}.1", f"{ours}.attentions.{index}"


def _rename(key: str, places: dict[str, str], layers: dict[str, str]) -> str:
    words = key.split(".")
    for length in (3, 2):
        place = places.get(".".join(words[:length]))
        if place is not None:
            layer, kind = ".".join(words[length:-1]), words[-1]
            return ".".join(filter(None, (place, layers.get(layer, layer), kind)))
    return key


def _split_by_head(rows: Tensor, heads: int) -> tuple[Tensor, ...]:
    """Queries, keys and values from rows (3 C, ...) that are grouped head by head as q, k, v."""
    rows = rows.flatten(1) if rows.dim() > 1 else rows  # a 1x1 convolution is a linear layer
    grouped = rows.unflatten(0, (heads, 3, -1))
    return tuple(grouped[:, part].flatten(0, 1) for part in range(3))


def _unet(method: Method, state: State) -> DiffusionUNet:
    base, channels = state["down.0.0.weight"].shape[:2]
    widths, attends = [], []
    entry = 1
    while (bias := f"down.{entry}.0.out_layers.3.bias") in state:
        widths.append(len(state[bias]))
        attends.append(f"down.{entry}.1.norm.weight" in state)
        entry += 3  # a level is two residual blocks and a downsampler
    if True not in attends:
        raise ValueError(f"of its {len(attends)} levels none has attention")
    image_size = 32 << attends.index(True)  # both papers attend from side 32 downwards
    return DiffusionUNet(
        image_size=image_size,
        base=base,
        multipliers=[width // base for width in widths],
        attention_at=[image_size >> level for level, attend in enumerate(attends) if attend],
        heads=8 if method == "d3ad" else max(base // 16, 1),
        channels=channels,
    )


def _context_unet(state: State) -> ContextUNet:
    base, channels = state["input_blocks.0.0.weight"].shape[:2]
    return ContextUNet(
        categories=len(state["cond_stage_model.embedding.weight"]),
        channels=channels,
        base=base,
        heads=dict(SIZES.values()).get(base, 4),
    )


def _feature_dit(state: State) -> FeatureDiT:
    width, channels = state["net.x_embedder.proj.weight"].shape[:2]
    depth = 0
    while f"net.blocks.{depth}.attn.qkv.weight" in state:
        depth += 1
    side = math.isqrt(state["net.pos_embed"].shape[1])
    return FeatureDiT(channels, side, width, depth, INVAD_HEADS)
