"""What is asked of the trainer around a detector: its data module and the other processes."""

import atexit
import gc
from functools import cache
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, distributed

Rows = dict[str, Any]
"""Columns over some images: ``path`` (list), ``category`` (n,) and tensors (n, ...) by name."""

PART = 2**22
"""Numbers that `add_up` holds of every process at once."""


def data_module(trainer: Trainer) -> Any:
    """Return the data module, which names the categories; a TypeError if there is none."""
    data = getattr(trainer, "datamodule", None)
    if data is None:
        raise TypeError(
            "no data module: pass datamodule=... to the Trainer's test or predict, not data loaders"
        )
    return data


@cache
def leave_group_at_exit() -> None:
    """Have this process leave its group of processes before the interpreter ends.

    A thread of Gloo lets go of a collective's tensors only some time after the collective. If the
    interpreter is ending by then, that aborts a process whose work is done. Leaving waits for it.
    """
    atexit.register(_leave_group)


def _leave_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()  # a training's DDP module would keep the group, and so its threads
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this is the first process of all nodes, as far as the environment says."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined]


def of_all_processes(own: Any) -> list[Any]:
    """Return what each process passed, in order of rank; all processes must call this."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [own]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    return gathered


def add_up(own: Tensor) -> None:
    """Replace a CPU tensor by its sum over all processes, in order of rank and part by part."""
    for part in own.view(-1).split(PART):
        shares = of_all_processes(part.clone())
        part.copy_(torch.stack(shares).sum(0))


def gather(batches: list[Rows]) -> dict[str, Tensor]:
    """Columns (N, ...) over the images of all processes, in the order of their paths.

    The order makes every later sum the same for any number of processes.
    """
    everyone = [rows for share in of_all_processes(batches) for rows in share]
    paths = [path for rows in everyone for path in rows["path"]]
    order = torch.tensor(sorted(range(len(paths)), key=paths.__getitem__), dtype=torch.long)
    names = [name for name in everyone[0] if name != "path"]
    return {name: torch.cat([rows[name] for rows in everyone])[order] for name in names}
