"""The Trainers of an experiment: the user's options, and the callbacks that each purpose needs."""

import copy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from lightning_ad.callbacks.forecast import EpochLines, Progress
from lightning_ad.callbacks.preemption import EndOnSignals, FirstCheckpoint
from lightning_ad.callbacks.training_record import TrainingRecord
from lightning_ad.callbacks.training_seed import TrainingSeed
from lightning_ad.detector.detector import Phase
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.speed.allocation import keep_freed_memory


class Trainers:
    """Makes a fresh Trainer for a training phase, or to calibrate, validate, test or predict.

    Args:
        options: of Lightning's Trainer.
        run: where checkpoints and results go.
        seed: of the noise in training.
        callbacks: of tests and predictions, by purpose.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        run: RunFolder,
        seed: int,
        callbacks: Mapping[str, Sequence[Callback]],
    ) -> None:
        self.options, self.run, self.seed, self.callbacks = options, run, seed, callbacks

    def __call__(self, purpose: Phase | str, more: Sequence[Callback] = ()) -> Trainer:
        """A Trainer for a phase, or for what is done with its result, with ``more`` callbacks."""
        options = {**self.options, "default_root_dir": str(self.run.path)}
        callbacks = [*copy.deepcopy(options["callbacks"] or []), EndOnSignals(), *more]
        callbacks += _watched(options, callbacks)
        if not isinstance(purpose, Phase):
            callbacks += self.callbacks.get(purpose, [])
            trainer = Trainer(**{**options, "callbacks": callbacks})
            if trainer.strategy.root_device.type == "cpu":
                keep_freed_memory()  # from here on; while it trains, others have what it lets go
            return trainer
        callbacks += [self._last_epoch(purpose), TrainingSeed(self.seed), TrainingRecord()]
        callbacks += [FirstCheckpoint(self.run.unfinished(purpose))]
        if purpose.epochs is not None:
            options |= {"max_epochs": purpose.epochs, "max_steps": -1}
        return Trainer(**{**options, "callbacks": callbacks})

    def trial(self, callbacks: Sequence[Callback], **limits: int) -> Trainer:
        """A Trainer that leaves nothing behind, with these callbacks and limits alone."""
        silent = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        options = {**self.options, **silent, "max_time": None, "num_sanity_val_steps": 0, **limits}
        return Trainer(**{**options, "callbacks": [EndOnSignals(), *callbacks]})

    def _last_epoch(self, phase: Phase) -> ModelCheckpoint:
        """Keep the checkpoint of a phase's last epoch."""
        return ModelCheckpoint(
            self.run.resume, phase.name, enable_version_counter=False, save_on_train_epoch_end=True
        )


def _watched(options: dict[str, Any], callbacks: list[Callback]) -> list[Callback]:
    """A progress bar for a terminal; for a log, instead, a line after each epoch."""
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    if options["enable_progress_bar"] is not False and sys.stdout.isatty():
        return [Progress()]
    options["enable_progress_bar"] = False
    return [EpochLines()]
