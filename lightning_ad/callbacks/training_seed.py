"""Randomness that a resumed run repeats: every training step starts from a seed of its own."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class TrainingSeed(Callback):
    """Reseed noise and dropout at each step from (seed, step, process).

    A run that goes on at step k then draws what an uninterrupted run would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Reseed."""
        torch.manual_seed(hash((self.seed, trainer.global_step, trainer.global_rank)) % 2**63)
