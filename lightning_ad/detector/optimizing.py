"""Optimizers as methods take and return them."""

import math
from collections.abc import Callable, Iterable
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerFactory = Callable[[Iterable], Optimizer]
"""Makes an optimizer of parameters, or of groups of them."""


def steps_in_all(trainer: Trainer) -> int:
    """Steps of a training; a ValueError if nothing ends it, as a rate that falls must know."""
    steps = trainer.estimated_stepping_batches
    if steps == math.inf:
        raise ValueError("the learning rate falls to the end: set trainer.max_epochs")
    return int(steps)


def scheduled(
    optimizer: Optimizer,
    share: Callable[[int], float],
    interval: Literal["step", "epoch"] = "step",
) -> OptimizerLRScheduler:
    """An optimizer at this share of its learning rate in each step, or epoch, from 0."""
    # A checkpoint would hold what else than a plain function is asked.
    schedule = LambdaLR(optimizer, lambda number: share(number))
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": schedule, "interval": interval},
    }
