"""A whole experiment: train each phase, calibrate, test; and go on where an earlier run stopped."""

from pathlib import Path
from typing import Any

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.forecast import Forecast
from lightning_ad.detector.checkpoint import load_content, load_weights, read_checkpoint
from lightning_ad.detector.detector import AnomalyDetector, Phase
from lightning_ad.experiment.calibrate import calibrate
from lightning_ad.experiment.checkpoints import readable, save_weights
from lightning_ad.experiment.phases import announce, announce_processes, require_finished
from lightning_ad.experiment.planning import Planner
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.experiment.time_budget import TimeLimit, Timetable
from lightning_ad.experiment.trainers import Trainers


class Experiment:
    """A detector, its data, the folder of their run, and the Trainers that are made for them."""

    def __init__(
        self,
        detector: AnomalyDetector,
        data: AnomalyDataModule,
        run: RunFolder,
        trainers: Trainers,
    ) -> None:
        self.detector, self.data, self.run, self.trainers = detector, data, run, trainers

    def check(self, start: Path | None = None, overwrite: bool = False) -> None:
        """Find out what can be wrong with data and weights before anything is written.

        With ``start``, a checkpoint of the method whose categories the detector takes over; with
        ``overwrite``, a finished run will be trained again.
        """
        if start:
            self.detector.take_categories(read_checkpoint(start))
        self.detector.meet(self.data, "fit")
        if start and not self.detector.phases():
            method = type(self.detector).__name__
            raise ValueError(f"{method} has no phase that could start from {start}")
        if overwrite or not self.run.final.exists():
            self.detector.load_pretrained()

    def fit(self, config: str, limit: TimeLimit, start: Path | None = None) -> None:
        """Train, calibrate and test after `check`, skipping what the run has finished.

        ``config`` is the YAML that `load_detector` needs to build the detector again. With
        ``start`` the first phase counts as finished with what it trains in that checkpoint.
        """
        if self.run.final.exists():
            announce(f"{self.run.final} is complete: going on to its test")
        else:
            self._train(start, limit)
            self._calibrate(config)
        if not any(record.split == "test" for record in self.data.records()):
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

    def _train(self, start: Path | None, limit: TimeLimit) -> None:
        phases = self.detector.phases()
        planner = Planner(self.detector, self.data, self.run, self.trainers)
        plan = planner.plan(1 if start else 0, limit)
        for line in plan.describe() if plan else []:
            announce(line)
        for number, phase in enumerate(phases, 1):
            title = f"phase {number} of {len(phases)}, '{phase.name}'"
            finished = self.run.finished(phase)
            if finished.exists():
                announce(f"{title}: finished before, weights from {finished}")
                load_weights(self.detector, finished)
            elif start and number == 1:
                announce(f"{title}: weights from {start}")
                self.detector.enter_phase(phase.name)
                load_weights(self.detector, start, self.detector.trained())
            else:
                self._train_phase(phase, title, plan)

    def _train_phase(self, phase: Phase, title: str, plan: Timetable | None) -> None:
        last, finished = self.run.unfinished(phase), self.run.finished(phase)
        announce(f"{title}: {f'going on from {last}' if last.exists() else 'starting'}")
        self.detector.enter_phase(phase.name)
        trainer = self.trainers(phase, [Forecast(plan, phase.name)] if plan else [])
        announce_processes(trainer, self.data)
        resume = str(readable(last)) if last.exists() else None
        # Tensors, numbers and names suffice for optimizers and callbacks; no file runs anything.
        trainer.fit(self.detector, datamodule=self.data, ckpt_path=resume, weights_only=True)
        require_finished(trainer, self.detector, title)
        if plan:
            plan.finish(phase.name, trainer.global_step)
        save_weights(trainer, self.detector, finished)
        # Buffers, such as running means, are a process's own until all take the saved ones.
        load_weights(self.detector, finished)
        if trainer.is_global_zero:
            last.unlink(missing_ok=True)
        trainer.strategy.barrier()

    def _calibrate(self, config: str) -> None:
        announce("calibrating on held-out normal images")
        self.detector.phase = ""
        self.detector.requires_grad_(False)
        self.detector.meet(self.data, "fit")  # phases' weights may number categories differently
        trainer = self.trainers("calibrate")
        self.data.trainer = trainer
        self.data.prepare_data()
        self.data.setup("fit")
        calibrate(self.detector, trainer, self.data)
        save_weights(trainer, self.detector, self.run.final, config)
