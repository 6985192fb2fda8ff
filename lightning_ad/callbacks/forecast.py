"""Says when a run ends, and ends its phases so that it does.

What a step takes is measured while a phase trains. From that the first process forecasts the end
of the whole run and, where the run has a deadline, decides how many steps the phase gets; the other
processes are told, so that all stop at the same step.
"""

import logging
import time
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

WARM_UP = 2
"""First steps of a phase that do not count: kernels are chosen, workers start."""

SECONDS_BETWEEN_LOOKS = 5.0

log = logging.getLogger(__name__)


class Plan(Protocol):
    """How long phases train and when the run ends, such as a `time_budget.Timetable`."""

    def limits(self, name: str) -> tuple[int, int] | None:
        """Steps of a phase in all, and the epochs they begin; None where time sets no limit."""

    def revise(self, name: str, done: int, seconds: float) -> None:
        """Note that a phase is at step ``done`` and what a step takes."""

    def ending(self) -> str:
        """When the run ends, for people."""


class Forecast(Callback):
    """Keeps a phase to its plan, and the plan to what is measured.

    All processes take part in each look at the clock; only the first one's plan counts.

    Args:
        plan: of the whole run.
        phase: name of the phase that the Trainer trains.
    """

    def __init__(self, plan: Plan, phase: str) -> None:
        self.plan = plan
        self.phase = phase
        self.marks: list[tuple[float, int]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the phase's length before the optimizer's schedule asks for it."""
        if stage == "fit":
            self._settle(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the length anew, and start the clock."""
        self._settle(trainer)
        self.marks = []
        self.seen = trainer.global_step
        self.next_look = self.seen + WARM_UP

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock every few seconds, on all processes after the same step."""
        step = trainer.global_step
        if step == self.seen or step < self.next_look:
            return  # the former while gradients accumulate
        self.seen = step
        self.marks.append((time.monotonic(), step))
        if len(self.marks) > 1 and trainer.is_global_zero:
            self.plan.revise(self.phase, step, self._pace())
        self.next_look = step + self._settle(trainer)

    def _pace(self) -> float:
        """Seconds of a step over the latter half of the time that was watched.

        A machine that others share has no one speed.
        """
        now, step = self.marks[-1]
        half = (self.marks[0][0] + now) / 2
        since, first = [mark for mark in self.marks[:-1] if mark[0] <= half][-1]
        return (now - since) / (step - first)

    def _settle(self, trainer: Trainer) -> int:
        """Give the Trainer the first process's limits; steps until the clock is looked at again."""
        limits, wait = trainer.strategy.broadcast((self.plan.limits(self.phase), self._wait()))
        if limits is not None:
            trainer.fit_loop.epoch_loop.max_steps, trainer.fit_loop.max_epochs = limits
        return wait

    def _wait(self) -> int:
        return max(1, round(SECONDS_BETWEEN_LOOKS / self._pace())) if len(self.marks) > 1 else 1


def ending(trainer: Trainer) -> str:
    """When the whole run ends, if that is forecast; else nothing."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, Forecast)]  # type: ignore[attr-defined]
    return found[0].plan.ending() if found else ""


class EpochLines(Callback):
    """One line in the log after each epoch, for output that no one watches."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say which epoch ended, its last loss, and when the run ends."""
        if not trainer.is_global_zero:
            return
        last = trainer.max_epochs or -1
        of = f" of {last}" if last > 0 else ""
        losses = [
            f"{name.rpartition('/')[2].replace('_', ' ')} {float(value):.4g}"
            for name, value in trainer.progress_bar_metrics.items()
        ]
        phase = getattr(pl_module, "phase", "")
        end = ending(trainer)
        said = [f"{phase}: epoch {trainer.current_epoch + 1}{of}", *losses]
        log.info("%s", ", ".join(said + ([f"whole run ends {end}"] if end else [])))


class Progress(RichProgressBar):
    """Lightning's progress bar, which also says when the whole run ends."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        end = ending(trainer)
        return {
            **super().get_metrics(trainer, pl_module),
            **({"whole run ends": end} if end else {}),
        }
