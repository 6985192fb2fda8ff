"""The Trainers of an experiment: the user's options, and the callbacks that each purpose needs."""

import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar

from lightning_ad.callbacks.forecast import EpochLines, Progress
from lightning_ad.callbacks.preemption import EndOnSignals, FirstCheckpoint, WholeEpochs
from lightning_ad.callbacks.training_record import TrainingRecord
from lightning_ad.callbacks.training_seed import TrainingSeed
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import LOSSES, AnomalyDetector
from lightning_ad.experiment.checkpoints import WholeFiles
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
        options["plugins"] = _with_whole_files(options["plugins"])
        callbacks = [*copy.deepcopy(options["callbacks"] or []), EndOnSignals(), *more]
        callbacks += _watched(options, callbacks)
        if not isinstance(purpose, Phase):
            callbacks += self.callbacks.get(purpose, [])
            trainer = Trainer(**{**options, "callbacks": callbacks})
            if trainer.strategy.root_device.type == "cpu":
                keep_freed_memory()  # from here on; while it trains, others have what it lets go
            return trainer
        callbacks = [callback for callback in callbacks if not _rests(callback, purpose)]
        callbacks += [LastEpoch(self.run.unfinished(purpose)), TrainingSeed(self.seed)]
        callbacks += [TrainingRecord(), WholeEpochs()]
        callbacks += [FirstCheckpoint(self.run.unfinished(purpose))]
        if purpose.epochs is not None:
            options |= {"max_epochs": purpose.epochs, "max_steps": -1}
        return Trainer(**{**options, "callbacks": callbacks})

    def trial(self, callbacks: Sequence[Callback], **own: Any) -> Trainer:
        """A Trainer that leaves nothing behind, with these callbacks and options of its own."""
        silent = dict.fromkeys(
            ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
        )
        options = {**self.options, **silent, "max_time": None, "num_sanity_val_steps": 0, **own}
        return Trainer(**{**options, "callbacks": [EndOnSignals(), *callbacks]})

    def require_known_monitors(self, detector: AnomalyDetector) -> None:
        """Raise a ValueError for a callback that watches what no phase of the detector logs."""
        stock = (AnomalyDetector.training_step, AnomalyDetector.on_validation_epoch_end)
        if (type(detector).training_step, type(detector).on_validation_epoch_end) != stock:
            return  # which may log more
        known = [f"{phase.name}/{name}" for phase in detector.phases() for name in LOSSES]
        for callback in self.options["callbacks"] or []:
            monitor = getattr(callback, "monitor", None)
            if monitor is not None and monitor not in (*known, *LOSSES, "epoch", "step"):
                raise ValueError(
                    f"{type(callback).__name__} watches {monitor}, which is never logged: choose "
                    f"one of {', '.join(known)}, or {' or '.join(LOSSES)} of every phase"
                )


class LastEpoch(ModelCheckpoint):
    """Keeps the checkpoint of a phase's last epoch, beside any ModelCheckpoint of the user's."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path.parent, path.stem, enable_version_counter=False, save_on_train_epoch_end=True
        )


def _with_whole_files(plugins: Any) -> list[Any]:
    """The user's plugins, with our way of writing checkpoints unless one of them has its own."""
    own = plugins if isinstance(plugins, list) else [plugins] if plugins else []
    return own if any(isinstance(each, CheckpointIO) for each in own) else [*own, WholeFiles()]


def _rests(callback: Callback, phase: Phase) -> bool:
    """Whether a callback watches a metric of another phase."""
    watched, _, metric = (getattr(callback, "monitor", None) or "").rpartition("/")
    return metric in LOSSES and watched not in ("", phase.name)


def _watched(options: dict[str, Any], callbacks: list[Callback]) -> list[Callback]:
    """A progress bar for a terminal; for a log, instead, a line after each epoch."""
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    if options["enable_progress_bar"] is not False and sys.stdout.isatty():
        return [Progress()]
    options["enable_progress_bar"] = False
    return [EpochLines()]
