"""The checkpoints in a run's folder: whole or absent, written by the first process."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Trainer

from data_modules.reading.store import written_whole
from lightning_ad.detector.checkpoint import detector_checkpoint, require_intact
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


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all, and reads none that is damaged.

    Lightning's own writes to the folder for temporary files, and copies over the earlier one when
    that lies on another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write beside the target, which is replaced at the end."""
        if "://" in str(path):  # an object store's files are whole by themselves
            return super().save_checkpoint(checkpoint, path, storage_options)
        with written_whole(Path(path)) as partial:
            torch.save(checkpoint, partial)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint after a look at its checksums."""
        if "://" not in str(path):
            require_intact(Path(path))
        return super().load_checkpoint(path, map_location, weights_only)


def readable(checkpoint: Path) -> Path:
    """The last epoch's checkpoint, if it can be read."""
    try:
        require_intact(checkpoint)
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        raise ValueError(
            f"{checkpoint} cannot be read ({error}): remove it to start its phase again"
        ) from error
    return checkpoint
