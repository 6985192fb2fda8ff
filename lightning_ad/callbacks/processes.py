"""What callbacks ask of the trainer around them: its data module and the other processes."""

from typing import Any

from lightning.pytorch import Trainer
from torch import distributed


def data_module(trainer: Trainer) -> Any:
    """Return the data module, which names the categories; a TypeError if there is none."""
    data = getattr(trainer, "datamodule", None)
    if data is None:
        raise TypeError(
            "no data module: pass datamodule=... to the Trainer's test or predict, not data loaders"
        )
    return data


def of_all_processes(own: Any) -> list[Any]:
    """Return what each process passed, in order of rank; all processes must call this."""
    if not distributed.is_initialized():
        return [own]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, own)
    return gathered
