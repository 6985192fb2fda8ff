"""Randomness that a resumed run repeats: every training batch starts from a seed of its own."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer


class TrainingSeed(Callback):
    """Reseed noise and dropout at each batch from (seed, batches so far, process).

    A run that goes on from its last epoch then draws what an uninterrupted run would have drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Reseed."""
        # Steps alone would give the batches that are accumulated to one the same noise.
        accumulated = trainer.accumulate_grad_batches
        batches = trainer.global_step * accumulated + batch_idx % accumulated
        torch.manual_seed(hash((self.seed, batches, trainer.global_rank)) % 2**63)
