"""The Trainers of an experiment: the user's options, and the callbacks that each purpose needs."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_ad.callbacks.preemption import EndOnSignals, FirstCheckpoint
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

    def __call__(self, purpose: Phase | str) -> Trainer:
        """A Trainer for a phase, or for what is done with its result."""
        options = {**self.options, "default_root_dir": str(self.run.path)}
        callbacks = [*copy.deepcopy(options["callbacks"] or []), EndOnSignals()]
        if not isinstance(purpose, Phase):
            callbacks += self.callbacks.get(purpose, [])
            trainer = Trainer(**{**options, "callbacks": callbacks})
            if trainer.strategy.root_device.type == "cpu":
                keep_freed_memory()  # from here on; while it trains, others have what it lets go
            return trainer
        callbacks += [self._last_epoch(purpose), TrainingSeed(self.seed)]
        callbacks += [FirstCheckpoint(self.run.unfinished(purpose))]
        if purpose.epochs is not None:
            options |= {"max_epochs": purpose.epochs, "max_steps": -1}
        return Trainer(**{**options, "callbacks": callbacks})

    def _last_epoch(self, phase: Phase) -> ModelCheckpoint:
        """Keep the checkpoint of a phase's last epoch."""
        return ModelCheckpoint(
            self.run.resume, phase.name, enable_version_counter=False, save_on_train_epoch_end=True
        )
