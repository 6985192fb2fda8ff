"""Which weights train, which a checkpoint of a phase leaves out, and what it then gets back."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

KEYS = ("state_dict", "current_model_state")
"""Where a checkpoint holds weights; the second is written by Lightning's weight averaging."""


def freeze_all_but(module: nn.Module, trained: Iterable[nn.Module]) -> None:
    """Let only these parts of a module require gradients."""
    module.requires_grad_(False)
    for part in trained:
        part.requires_grad_(True)
    # Buffers are the same everywhere. Broadcasting them at each forward pass, as DDP would,
    # hangs where one process validates one batch fewer than another.
    buffers = [name for name, _ in module.named_buffers()]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, buffers)


def leave_out(checkpoint: dict[str, Any], parts: Sequence[str]) -> None:
    """Take the weights of these parts, by name, out of a checkpoint."""
    prefixes = tuple(f"{name}." for name in parts)
    for key in KEYS:
        if key in checkpoint:
            state = checkpoint[key].items()
            checkpoint[key] = {k: v for k, v in state if not k.startswith(prefixes)}


def complete(checkpoint: dict[str, Any], own: dict[str, Tensor]) -> None:
    """Give a checkpoint a detector's own weights of the parts that it lacks."""
    for key in KEYS:
        if key in checkpoint:
            present = {name.split(".")[0] for name in checkpoint[key]}
            absent = {k: v for k, v in own.items() if k.split(".")[0] not in present}
            checkpoint[key] = {**absent, **checkpoint[key]}
