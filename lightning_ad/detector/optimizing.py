"""Optimizers as methods take and return them."""

from collections.abc import Callable, Iterable
from typing import Literal

from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerFactory = Callable[[Iterable], Optimizer]
"""Makes an optimizer of parameters, or of groups of them."""


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
