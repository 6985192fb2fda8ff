"""A whole experiment: train each phase, calibrate, test; and go on where an earlier run stopped."""

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.forecast import Forecast
from lightning_ad.detector.checkpoint import load_content, load_weights, read_checkpoint
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.region import lend_region
from lightning_ad.experiment.calibrate import calibrate
from lightning_ad.experiment.checkpoints import readable, save_weights
from lightning_ad.experiment.origin import origin_in, origin_of
from lightning_ad.experiment.phases import (
    announce,
    announce_processes,
    require_finished,
    require_lengths_count,
)
from lightning_ad.experiment.planning import Planner
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.experiment.time_budget import TimeLimit, Timetable
from lightning_ad.experiment.trainers import Trainers
from lightning_ad.experiment.vouching import vouched_for
from lightning_ad.reports.machine import circumstances

SELF_SUFFICIENT = ("seed_everything", "model", "data", "evaluation")
"""Sections of the configuration that a final checkpoint carries."""


class Experiment:
    """A detector, its data, the folder of their run, and the Trainers that are made for them."""

    def __init__(
        self,
        detector: AnomalyDetector,
        data: AnomalyDataModule,
        run: RunFolder,
        trainers: Trainers,
        config: dict[str, Any],
    ) -> None:
        self.detector, self.data, self.run, self.trainers = detector, data, run, trainers
        self.config = config

    @cached_property
    def origin(self) -> dict[str, Any]:
        """What this experiment's checkpoints are trained with."""
        return origin_of(self.config, self.data)

    @property
    def learner(self) -> AnomalyDetector:
        """What the phases train: the detector, or what it wraps."""
        return self.detector.learner

    @property
    def lessons(self) -> AnomalyDataModule:
        """What they train it on."""
        return self.detector.lessons(self.data)

    def check(self, start: Path | None = None, overwrite: bool = False) -> None:
        """Find out what can be wrong with data, weights and folder before anything is written.

        With ``start``, a checkpoint of the method whose categories the detector takes over; with
        ``overwrite``, a finished run will be trained again.
        """
        if start:
            self.detector.take_categories(read_checkpoint(start))
        self.detector.meet(self.data, "fit")
        phases = self.detector.phases()
        require_lengths_count(phases, self.trainers.options)
        if start and not phases:
            method = self.detector.title
            raise ValueError(f"{method} has no phase that could start from {start}")
        self.trainers.require_known_monitors(self.detector)
        self.detector.trained_with = self.learner.trained_with = self.origin
        if not overwrite:
            self.run.require_same(self.origin, phases)
            self.run.require_same_test(self.data.files_hash("test"))
            for number in range(1, len(phases) + 1):
                self._last(phases[:number])
        if overwrite or not self._is_over(self.run.final, phases):
            self.detector.load_pretrained()

    def open(self, overwrite: bool = False) -> None:
        """Take the folder for this process and write down what it will hold."""
        self.lock = self.run.lock()
        if overwrite:
            self.run.clear()
        else:  # another run may have come since `check`
            self.run.require_same(self.origin, self.detector.phases())
        self.run.open(self.config)

    def fit(self, limit: TimeLimit, start: Path | None = None) -> None:
        """Train, calibrate and test after `check`, skipping what the run has finished.

        With ``start`` the first phase counts as finished with what it trains in that checkpoint.
        """
        if self._is_over(self.run.final, self.detector.phases()):
            announce(f"{self.run.final} is complete: going on to its test")
        else:
            announce(vouched_for(self.detector, self.data))
            self._train(start, limit)
            self._calibrate()
        if not self.data.listed("test"):
            announce(f"no test images; '{self.run.final}' is ready for 'lightning predict'")
            return
        load_weights(self.detector, self.run.final)
        self.trainers("test").test(self.detector, datamodule=self.data, verbose=False)
        announce(f"checkpoint: {self.run.final}")

    def take(self, checkpoint: dict[str, Any], source: Path) -> None:
        """Load a checkpoint, with which to validate, test or predict."""
        if "config" not in checkpoint:  # of a phase, without what only the final one keeps
            self.detector.load_pretrained()
        load_content(self.detector, checkpoint, source)
        lend_region(self.detector.calibration, self.detector.categories, self.data)

    def _is_over(self, checkpoint: Path, phases: Sequence[Phase]) -> bool:
        """Whether a checkpoint is there, and its last phases are as long as is asked for now."""
        by_trainer = any(phase.epochs is None for phase in phases)
        return checkpoint.exists() and not (by_trainer and self._was_shorter(checkpoint))

    def _was_shorter(self, checkpoint: Path) -> bool:
        known = origin_in(checkpoint)
        if not known:
            return False
        epochs = [each["settings"]["trainer"]["max_epochs"] for each in (known, self.origin)]
        return epochs[0] != epochs[1]

    def _train(self, start: Path | None, limit: TimeLimit) -> None:
        phases = self.detector.phases()
        planner = Planner(self.detector, self.data, self.run, self.trainers)
        plan = planner.plan(1 if start else 0, limit)
        for line in plan.describe() if plan else []:
            announce(line)
        for number, phase in enumerate(phases, 1):
            title = f"phase {number} of {len(phases)}, '{phase.name}'"
            finished = self.run.finished(phase)
            if self._is_over(finished, phases[:number]):
                announce(f"{title}: finished before, weights from {finished}")
                load_weights(self.learner, finished)
            elif start and number == 1:
                announce(f"{title}: weights from {start}")
                self.learner.enter_phase(phase.name)
                load_weights(self.learner, start, self.learner.trained())
            else:
                self._train_phase(phase, title, self._last(phases[:number]), plan)

    def _last(self, phases: Sequence[Phase]) -> Path | None:
        """Where the last of these phases goes on from, if it was begun on what precedes it now.

        The first phase that is as long as the Trainer's ``max_epochs`` goes on when that grows, and
        those after it start again. A `SystemExit` if it cannot, as its optimizer is gone.
        """
        *earlier, phase = phases
        last, finished = self.run.unfinished(phase), self.run.finished(phase)
        goes_on = phase.epochs is None and all(each.epochs is not None for each in earlier)
        if last.exists():
            return last if goes_on or self._is_over(last, phases) else None
        if goes_on and finished.exists() and not self._is_over(finished, phases):
            raise SystemExit(
                f"{finished} cannot be trained on to trainer.max_epochs: its optimizer, "
                f"{last}, is not there; choose another --run_dir"
            )
        return None

    def _train_phase(
        self, phase: Phase, title: str, last: Path | None, plan: Timetable | None
    ) -> None:
        announce(f"{title}: {f'going on from {last}' if last else 'starting'}")
        self.learner.enter_phase(phase.name)
        trainer = self.trainers(phase, [Forecast(plan, phase.name)] if plan else [])
        announce_processes(trainer, phase.batch_size or self.data.batch_size)
        resume = str(readable(last)) if last else None
        # Tensors, numbers and names suffice for optimizers and callbacks; no file runs anything.
        trainer.fit(self.learner, datamodule=self.lessons, ckpt_path=resume, weights_only=True)
        require_finished(trainer, self.learner, title)
        if plan:
            plan.finish(phase.name, trainer.global_step)
        finished = self.run.finished(phase)
        save_weights(trainer, self.learner, finished)
        # Buffers, such as running means, are a process's own until all take the saved ones.
        load_weights(self.learner, finished)
        if trainer.is_global_zero and phase.epochs is not None:  # others may go on one day
            self.run.unfinished(phase).unlink(missing_ok=True)
        trainer.strategy.barrier()

    def _calibrate(self) -> None:
        announce("calibrating on held-out normal images")
        self.detector.phase = self.learner.phase = ""
        self.detector.requires_grad_(False)
        self.detector.meet(self.data, "fit")  # phases' weights may number categories differently
        trainer = self.trainers("calibrate")
        self.data.trainer = trainer
        self.data.prepare_data()
        self.data.setup("fit")
        calibrate(self.detector, trainer, self.data)
        images = {"images": len(self.data.training_records())}
        trained = circumstances(trainer.strategy.root_device) | images
        self.detector.trained_with = {**self.origin, "trained": trained}
        save_weights(trainer, self.detector, self.run.final, yaml.safe_dump(self._lasting()))

    def _lasting(self) -> dict[str, Any]:
        """The configuration that a final checkpoint carries."""
        lasting = copy.deepcopy({name: self.config[name] for name in SELF_SUFFICIENT})
        lasting["model"] = self.detector.lasting_config(lasting["model"])
        return lasting | {"trainer": {"precision": self.config["trainer"]["precision"]}}
