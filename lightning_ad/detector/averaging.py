"""An average of the weights over the training, which a phase ends with.

Only what the phase trains is averaged; Lightning's own averaging takes in frozen parts, too, and
moves them by rounding.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_ad.detector.detector import AnomalyDetector


class AveragedDetector(AnomalyDetector):
    """Base of methods that keep an exponential moving average of what trains."""

    kept_average = 0.998
    """Share that the average keeps of itself at a step, once it is long enough."""

    _average: tuple[Tensor, ...] = ()

    def _moving(self) -> list[Tensor]:
        return [p.detach() for part in self.trained() for p in part.parameters()]

    def on_train_start(self) -> None:
        """Start the average, or go on with a checkpoint's."""
        super().on_train_start()
        average = self._average or self._moving()
        pairs = zip(average, self._moving(), strict=True)
        self._average = tuple(a.to(p.device, copy=True) for a, p in pairs)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add the weights to their average, which is short at first."""
        steps = self.trainer.global_step
        kept = min(self.kept_average, steps / (steps + 9))
        torch._foreach_lerp_(list(self._average), self._moving(), 1 - kept)

    def on_train_end(self) -> None:
        """Take the average for the weights."""
        for parameter, average in zip(self._moving(), self._average, strict=True):
            parameter.copy_(average)
        self._average = ()
        super().on_train_end()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the average of an unfinished phase."""
        super().on_save_checkpoint(checkpoint)
        if self._average:
            checkpoint["average"] = list(self._average)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Find the average of an unfinished phase."""
        super().on_load_checkpoint(checkpoint)
        self._average = tuple(checkpoint.get("average", ()))
