"""The checkpoints in a run's folder: whole or absent, written by the first process."""

from pathlib import Path

import torch
from lightning.pytorch import Trainer

from data_modules.reading.store import written_whole
from lightning_ad.detector.checkpoint import detector_checkpoint
from lightning_ad.detector.detector import AnomalyDetector


def save_weights(
    trainer: Trainer, detector: AnomalyDetector, path: Path, config: str | None = None
) -> None:
    """Write the detector's weights once, from the first process, whole or not at all.

    With ``config`` the checkpoint is self-sufficient: it also holds the frozen parts that phases
    leave out, and the configuration.
    """
    if trainer.is_global_zero:
        with written_whole(path) as partial:
            torch.save(detector_checkpoint(detector, config), partial)
    trainer.strategy.barrier()


def readable(checkpoint: Path) -> Path:
    """The last epoch's checkpoint, if it can be read."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise ValueError(
            f"{checkpoint} cannot be read ({error}): remove it to start its phase again"
        ) from error
    return checkpoint
