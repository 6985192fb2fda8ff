"""An orderly end when a cluster wants its machine back.

A scheduler sends SIGTERM or SIGUSR1 some time before it kills. A run has nothing to save then: the
last epoch's checkpoint is there, and the same command repeats at most one epoch, with the same
random numbers. So the signal ends the process, with a status that says "try again".
"""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
TRY_AGAIN = os.EX_TEMPFAIL
"""Exit status of a run that was told to end."""

log = logging.getLogger(__name__)

_launchers: list[_SubprocessScriptLauncher] = []
"""What started the other processes: the first Trainer's, the later ones find them running."""


def end_on_signals(trainer: Trainer | None = None) -> None:
    """End this process, and those that a ``trainer`` started, on SIGTERM and SIGUSR1.

    Lightning then leaves SIGUSR1 alone: its own answer under SLURM saves in the middle of an epoch
    a checkpoint that the next phase would take for its own.
    """
    launcher = trainer.strategy.launcher if trainer else None
    if isinstance(launcher, _SubprocessScriptLauncher):
        _launchers.append(launcher)
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            return  # a data worker, which was forked with this handler, ends with its owner
        log.warning("%s: ending here; the same command goes on", signal.Signals(number).name)
        for each in _launchers:
            each.kill(signal.SIGKILL)  # they may wait in a reduction and hear nothing else
        raise SystemExit(TRY_AGAIN)

    for number in SIGNALS:
        signal.signal(number, end)


def end_on_interrupt(stop: Callable[[], None]) -> None:
    """Call ``stop`` on the first Ctrl-C or SIGTERM; a second one ends the process at once."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


class EndOnSignals(Callback):
    """Take SIGTERM back from Lightning while a Trainer runs.

    Lightning's handler talks to the other processes from wherever the signal struck, which may be
    in the middle of another conversation that then never ends.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take it back, whatever the Trainer is about to do."""
        end_on_signals(trainer)

    on_test_start = on_predict_start = on_train_start

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say how an interrupted run goes on, which Lightning ends without a word."""
        if isinstance(exception, KeyboardInterrupt):
            log.warning("interrupted; the same command goes on")


class FirstCheckpoint(Callback):
    """Write a checkpoint before a phase's first step, as `ModelCheckpoint` does after each epoch.

    A run that is stopped in its first epoch then also goes on from where it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it, unless this phase goes on from one."""
        if trainer.ckpt_path is None:
            trainer.save_checkpoint(self.path, weights_only=False)


class WholeEpochs(Callback):
    """Goes on after the epoch that a checkpoint was written at, whatever ends the phase.

    Told a number of steps, Lightning takes that epoch for unfinished and begins with an empty one,
    after which every epoch draws its images in the next one's order. So it is told after it began.
    """

    max_steps = -1

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Hide the number of steps, once optimizers and schedules know it."""
        self.max_steps = trainer.max_steps
        trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set it again."""
        if trainer.ckpt_path is not None:
            trainer.fit_loop.epoch_loop.max_steps = self.max_steps
