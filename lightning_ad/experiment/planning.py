"""From the phases of a detector to the timetable of a run, measured once before it trains."""

import copy
import math
import time

import torch
from lightning.pytorch import Trainer

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.training_record import read_training
from lightning_ad.detector.checkpoint import load_weights
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.processes import is_first_process, of_all_processes
from lightning_ad.experiment.phases import announce
from lightning_ad.experiment.probe import probe_phase, probe_scoring
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.experiment.time_budget import (
    Stretch,
    TimeLimit,
    Timetable,
    as_option,
)
from lightning_ad.experiment.trainers import Trainers
from lightning_ad.reports.files import write_whole
from lightning_ad.reports.times import clock, spoken

WORTH_A_FORECAST = 50
"""Steps in all below which a run is over almost as soon as it is measured."""


class Planner:
    """Plans a run of a detector on its data.

    Args:
        detector: with its pretrained weights.
        data: what it trains on.
        run: the folder of the run, which may have finished some phases.
        trainers: of the run.
    """

    def __init__(
        self,
        detector: AnomalyDetector,
        data: AnomalyDataModule,
        run: RunFolder,
        trainers: Trainers,
    ) -> None:
        self.detector, self.data, self.run, self.trainers = detector, data, run, trainers

    def plan(self, given: int, limit: TimeLimit) -> Timetable | None:
        """The timetable of what is left to train.

        None where that is nothing, endless, or too little to be worth a forecast. The weights of
        the first ``given`` phases come from elsewhere.

        Raises:
            SystemExit: if the time is over or too short, or a phase has no length that others'
                could be in proportion to.
        """
        phases = self.detector.phases()
        left = [p for p in phases[given:] if not self.run.finished(p).exists()]
        if not left:
            return None
        deadline = deadline_of(self.run, limit)
        endless = [phase.name for phase in left if not _steps(self.trainers(phase), 1)]
        if endless and deadline is not None:
            raise SystemExit(
                "--time is shared in the proportions of the phases' lengths, and "
                f"'{endless[0]}' has none: set trainer.max_epochs"
            )
        if endless or (deadline is None and self._expected(left) < WORTH_A_FORECAST):
            return None
        announce("measuring how long this will take")
        trial = copy.deepcopy(self.detector)
        measured = {}
        for phase in phases:
            if phase in left:
                lessons = trial.lessons(self.data)
                measured[phase.name] = probe_phase(trial.learner, lessons, self.trainers, phase)
            elif self.run.finished(phase).exists():
                load_weights(trial.learner, self.run.finished(phase))
        scoring = probe_scoring(trial, self.data, self.trainers)
        stretches = [
            self._stretch(p, *measured.get(p.name, (self._epoch(p), None))) for p in phases[given:]
        ]
        plan = Timetable(*of_all_processes((stretches, scoring, deadline))[0])
        require_enough(plan, limit.began)
        return plan

    def _expected(self, left: list[Phase]) -> int:
        """About how many steps are left to train, with nothing done yet."""
        return sum(_steps(self.trainers(phase), self._epoch(phase)) for phase in left)

    def _epoch(self, phase: Phase) -> int:
        """Steps of an epoch of a phase in which all training images are drawn."""
        trainer, images = self.trainers(phase), len(self.data.training_records())
        of_one = images // trainer.world_size // (phase.batch_size or self.data.batch_size)
        return math.ceil(max(1, of_one) / trainer.accumulate_grad_batches)

    def _stretch(self, phase: Phase, epoch: int, seconds: float | None) -> Stretch:
        """A phase as the timetable sees it; ``seconds`` of a step, None of a finished one."""
        planned = _steps(self.trainers(phase), epoch)
        if seconds is None:
            done = int(read_training(self.run.path).get(f"{phase.name}/steps", planned))
            return Stretch(phase.name, planned, epoch, 0.0, done, finished=True)
        return Stretch(phase.name, planned, epoch, seconds, self._done(phase))

    def _done(self, phase: Phase) -> int:
        last = self.run.unfinished(phase)
        if not last.exists():
            return 0
        return int(torch.load(last, "cpu", weights_only=False, mmap=True)["global_step"])


def _steps(trainer: Trainer, epoch: int) -> int:
    """Steps that a Trainer would train, with so many in an epoch; 0 if nothing ends it."""
    epochs = -1 if trainer.max_epochs is None else trainer.max_epochs
    limits = [epochs * epoch] if epochs != -1 else []
    limits += [trainer.max_steps] if trainer.max_steps != -1 else []
    return min(limits, default=0)


def require_enough(plan: Timetable, began: float) -> None:
    """Raise a SystemExit, on all processes, if the time up to the deadline is too short.

    The message names the least that works for a command like this one, which ``began`` then.
    """
    now = time.time()
    if plan.deadline is None or of_all_processes(now + plan.least <= plan.deadline)[0]:
        return
    if not is_first_process():
        raise SystemExit(1)  # the first process says why
    raise SystemExit(
        f"{spoken(plan.deadline - now)} are left, too short for one epoch of each phase, "
        f"calibration and test, which take {spoken(plan.least)} here: "
        f"give --time {as_option(1.1 * (now - began + plan.least))} or more"
    )


def deadline_of(run: RunFolder, limit: TimeLimit) -> float | None:
    """The moment (`time.time`) at which a run has to end, if it has any; kept in its folder.

    A time given now makes a new one; without it, an interrupted run keeps its own.

    Raises:
        SystemExit: if that has passed.
    """
    if limit.seconds is not None:
        moment = limit.began + limit.seconds
        if is_first_process():
            write_whole(run.deadline, f"{moment}\n")
        return moment
    if not run.deadline.exists():
        return None
    moment = float(run.deadline.read_text())
    if moment <= time.time():
        raise SystemExit(
            f"the time of the run in {run.path} was over at {clock(moment)}: "
            "give it more with --time, counted from now"
        )
    return moment
