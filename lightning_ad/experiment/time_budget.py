"""Time instead of epochs: how long each phase trains so that a run ends when it has to.

An experiment file says how long its phases train in relation to each other; the time at hand says
how long all of them train. `share_time` is that rule, a plain function of measured speeds; a
`Timetable` applies it again whenever a phase has measured itself anew.
"""

import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lightning_ad.reports.times import at_and_in, spoken

UNITS = {"h": 3600, "m": 60, "s": 1}
DURATION = re.compile(r"(?=\d)(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

MOST_DRIFT = 1.25
"""How much slower than measured a phase lets what follows seem: a machine that is busy for a moment
would else end the phase for good."""


class TimeLimit(NamedTuple):
    """How long a command may take."""

    began: float
    """Moment (`time.time`) at which it began."""
    seconds: int | None = None
    """None where it may take any time, or what an interrupted run has left."""


def process_began() -> float:
    """The moment (`time.time`) at which this process was started, where the system tells it.

    Importing what a run needs takes seconds, which count; elsewhere they don't.
    """
    status, uptime = Path("/proc/self/stat"), Path("/proc/uptime")
    if not status.exists():
        return time.time()
    ticks = int(status.read_text().rpartition(")")[2].split()[19])
    age = float(uptime.read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def duration(text: str) -> int:
    """Seconds that a text such as 90s, 20m or 1h30m stands for; a ValueError for any other."""
    found = DURATION.fullmatch(text.strip())
    seconds = sum(
        int(number or 0) * unit
        for number, unit in zip(found.groups() if found else (), UNITS.values(), strict=False)
    )
    if not seconds:
        raise ValueError(f"'{text}' is no duration: expected one such as 90s, 20m or 1h30m")
    return seconds


def as_option(seconds: float) -> str:
    """A duration as `duration` reads it, rounded up to ten seconds."""
    whole = math.ceil(seconds / 10) * 10
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "m"), (rest, "s")]
    return "".join(f"{number}{unit}" for number, unit in parts if number)


@dataclass(frozen=True)
class Stretch:
    """A phase as far as time is concerned. A step is one of the optimizer."""

    name: str
    planned: int
    """Steps that the experiment file asks for."""
    epoch: int
    """Steps of one epoch, the least that is trained."""
    seconds: float
    """What a step takes, its share of validation and of checkpoints included."""
    done: int = 0
    finished: bool = False

    def length(self, scale: float) -> int:
        """Steps in all when each phase is scaled so; never below one epoch or what is done."""
        return self.done if self.finished else max(self.epoch, self.done, int(scale * self.planned))

    def seconds_left(self, length: int) -> float:
        """What the steps up to ``length`` take."""
        return max(0, length - self.done) * self.seconds


def share_time(phases: Sequence[Stretch], seconds: float) -> list[int]:
    """Steps of each phase, in the proportions of their plans, that end after ``seconds``.

    Every phase gets at least one epoch, even if that takes longer. A finished phase holds the
    others to its proportion: they use less than the time where it was short.
    """
    scale = _largest_scale(phases, seconds)
    low = 0.0
    for _ in range(60):  # halves the interval far below a step
        middle = (low + scale) / 2
        if _seconds(phases, middle) > seconds:
            scale = middle
        else:
            low = middle
    return [phase.length(low) for phase in phases]


def _largest_scale(phases: Sequence[Stretch], seconds: float) -> float:
    """A scale that none can exceed: of the whole time, or of a finished phase."""
    unfinished = [phase for phase in phases if not phase.finished]
    done = sum(phase.done * phase.seconds for phase in unfinished)
    full = sum(phase.planned * phase.seconds for phase in unfinished)
    bounds = [phase.done / phase.planned for phase in phases if phase.finished]
    return min([*bounds, (max(0.0, seconds) + done) / full + 1]) if full else 0.0


def _seconds(phases: Sequence[Stretch], scale: float) -> float:
    return sum(phase.seconds_left(phase.length(scale)) for phase in phases)


class Timetable:
    """When a run's phases and the run itself end, by what is known so far.

    Args:
        phases: all of them, in order; those without a planned length have none here either.
        scoring: seconds that calibration and test take after the last phase.
        deadline: moment (`time.time`) at which the run has to end; phases keep their planned
            lengths if there is none.
    """

    def __init__(
        self, phases: Sequence[Stretch], scoring: float, deadline: float | None = None
    ) -> None:
        self.measured, self.phases = list(phases), list(phases)
        self.measured_scoring = self.scoring = scoring
        self.deadline = deadline
        self.share()

    def share(self) -> None:
        """Settle the phases' lengths anew."""
        self.settled = time.time()
        if self.deadline is None:
            self.lengths = [p.done if p.finished else p.planned for p in self.phases]
        else:
            self.lengths = share_time(self.phases, self.deadline - time.time() - self.scoring)

    def limits(self, name: str) -> tuple[int, int] | None:
        """Steps of a phase in all, and the epochs they begin; None where time sets no limit."""
        if self.deadline is None:
            return None
        place = self._place(name)
        length = self.lengths[place]
        return length, math.ceil(length / self.phases[place].epoch)

    def revise(self, name: str, done: int, seconds: float) -> None:
        """Note what the steps of a running phase really take, and settle the lengths anew.

        Later phases were measured in a few steps, too, and are taken to be off by as much, within
        reason; scoring only if everything is slower than measured.
        """
        place = self._place(name)
        drift = min(MOST_DRIFT, seconds / self.measured[place].seconds)
        self.phases[place] = replace(self.phases[place], done=done, seconds=seconds)
        self.phases[place + 1 :] = [
            replace(later, seconds=later.seconds * drift) for later in self.measured[place + 1 :]
        ]
        self.scoring = self.measured_scoring * max(1.0, drift)
        self.share()

    def finish(self, name: str, done: int) -> None:
        """Note that a phase has ended."""
        place = self._place(name)
        self.phases[place] = replace(self.phases[place], done=done, finished=True)
        self.share()

    @property
    def least(self) -> float:
        """Seconds that one epoch of each phase, calibration and test take."""
        return _seconds(self.phases, 0.0) + self.scoring

    @property
    def end(self) -> float:
        """The moment (`time.time`) at which the run ends."""
        pairs = zip(self.phases, self.lengths, strict=True)
        return self.settled + self.scoring + sum(phase.seconds_left(n) for phase, n in pairs)

    def describe(self) -> list[str]:
        """A line for each phase that is left, and one for the whole run."""
        lines = [
            f"{phase.name}: {_epochs(length, phase.epoch)}, "
            f"about {spoken(phase.seconds_left(length))}"
            for phase, length in zip(self.phases, self.lengths, strict=True)
            if not phase.finished
        ]
        return [
            *lines,
            f"calibration and test: about {spoken(self.scoring)}; whole run ends {self.ending()}",
        ]

    def ending(self) -> str:
        """When the run ends."""
        return at_and_in(self.end)

    def _place(self, name: str) -> int:
        return [phase.name for phase in self.phases].index(name)


def _epochs(steps: int, epoch: int) -> str:
    epochs = steps / epoch
    number = f"{epochs:.1f}".removesuffix(".0") if epochs < 10 else f"{math.floor(epochs)}"
    return f"{number} epoch{'' if number == '1' else 's'}"
