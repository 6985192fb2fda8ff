"""Measures what a run will take, in a few steps on a copy of the detector.

Each phase trains for seconds, and some images are scored, before the run itself starts. Nothing of
that stays: the copy is dropped, the random numbers are set back, no file is written but the caches
that the run needs anyway. How well the first steps stand for all others shows later, in
`callbacks.forecast`.
"""

import math
import tempfile
import time
import warnings
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from data_modules import AnomalyDataModule
from data_modules.records import Record
from lightning_ad.callbacks import Evaluation
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.experiment.calibrate import calibrate
from lightning_ad.experiment.choose import passes
from lightning_ad.experiment.trainers import Trainers
from lightning_ad.speed.clock import finish_work

ENOUGH = 1.5
"""Seconds of steps that are watched, after a first one that warms up."""
MOST_STEPS = 20
IMAGES_ON_CPU = 4
"""Images scored at once on a CPU, where large batches are no faster and take minutes."""
TAIL = 3.0
"""Seconds that no probe sees: panels, files, the end of a W&B run."""


def probe_phase(
    trial: AnomalyDetector, data: AnomalyDataModule, trainers: Trainers, phase: Phase
) -> tuple[int, float]:
    """Train ``trial`` for a few steps; the steps of an epoch, and seconds that a step takes.

    Validation, which a probe is too short for, is taken to cost as much as training on its images.
    """
    clock = _StepClock()
    trainer = trainers.trial([clock], limit_val_batches=0, max_epochs=-1, max_steps=1 + MOST_STEPS)
    trial.enter_phase(phase.name)
    with isolate_rng():
        trainer.fit(trial, datamodule=data)
    epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    validation = len(data.val_dataloader()) / trainer.accumulate_grad_batches
    every = trainer.check_val_every_n_epoch or 1
    return epoch, clock.seconds * (1 + validation / (every * epoch))


def probe_scoring(trial: AnomalyDetector, data: AnomalyDataModule, trainers: Trainers) -> float:
    """Calibrate and test ``trial`` on a few images; seconds that this takes on all of them."""
    trial.phase = ""
    trial.requires_grad_(False)
    trainer, clock = trainers.trial([]), _ImageClock()
    held_out = data.held_out_records()
    tested = data.listed("test")
    chosen = _some_of_each(held_out, trainer.world_size)
    few = data.holding_out(chosen)
    if trainer.strategy.root_device.type == "cpu":
        few.eval_batch_size = min(data.eval_batch_size, IMAGES_ON_CPU)
    start = time.monotonic()
    few.trainer = trainer
    with isolate_rng(), warnings.catch_warnings(action="ignore"):
        calibrate(trial, trainer, few)
        if tested:
            with tempfile.TemporaryDirectory() as folder:
                tester = trainers.trial(
                    [clock, _Counted()], limit_test_batches=3, default_root_dir=folder
                )
                tester.test(trial, datamodule=few, verbose=False)
    once = time.monotonic() - start
    rest = (1 + passes(trial)) * (len(held_out) - len(chosen))
    rest += len(tested) - clock.images * trainer.world_size
    return TAIL + once + max(0, rest) / trainer.world_size * clock.seconds


def _some_of_each(records: Sequence[Record], processes: int) -> list[Record]:
    """The first image of each category, and what fills a batch of each process."""
    first = {record.category: record for record in reversed(records)}
    others = [record for record in records if record is not first[record.category]]
    return [*first.values(), *others[: max(0, processes * IMAGES_ON_CPU - len(first))]]


class _StepClock(Callback):
    """Times the steps of a phase, and ends it when there were enough."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.taken: list[float] = []
        self.last = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == len(self.taken):
            return  # gradients accumulate
        finish_work(pl_module.device)
        now = time.monotonic()
        self.taken.append(now - self.last)
        self.last = now
        if len(self.taken) == 1:
            more = trainer.strategy.broadcast(_steps_after(self.taken[0]))
            trainer.fit_loop.epoch_loop.max_steps = 1 + more

    @property
    def seconds(self) -> float:
        """A step, the first one not counted unless it is the only one."""
        counted = self.taken[1:] or self.taken
        return sum(counted) / len(counted)


def _steps_after(first: float) -> int:
    """How many steps to watch after one that took so many seconds; none if that was long."""
    return 0 if first > 2 * ENOUGH else min(MOST_STEPS, max(2, round(ENOUGH / first)))


class _ImageClock(Callback):
    """Times the scoring of images, from batch to batch."""

    def __init__(self) -> None:
        self.moments: list[float] = []
        self.images = 0

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.moments = [time.monotonic()]

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        finish_work(pl_module.device)
        self.moments.append(time.monotonic())
        self.images += len(batch["image"])

    @property
    def seconds(self) -> float:
        """An image on one process, the first batch not counted unless it is the only one."""
        if len(self.moments) < 2:
            return 0.0
        batches = len(self.moments) - 1
        counted = self.moments[min(1, batches - 1) :]
        return (counted[-1] - counted[0]) / (len(counted) - 1) / (self.images / batches)


class _Counted(Evaluation):
    """The metrics of a test while it runs, of which nothing is said or kept."""

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute nothing: a few images have no metrics."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write nothing."""
