"""Randomness that a resumed run repeats: every epoch starts from a seed of its own."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class EpochSeed(Callback):
    """Reseed noise and dropout at each epoch from (seed, epoch, process).

    A run that goes on at epoch k then draws what an uninterrupted run would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reseed."""
        torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)
