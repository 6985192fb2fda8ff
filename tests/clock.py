"""A clock that moves with what happens, however fast the machine is."""

from collections.abc import Callable
from typing import Any

import pytest

from lightning_ad.detector.detector import AnomalyDetector


class Clock:
    """Stands for `time.time` and `time.monotonic` until the test is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1.8e9
        for name in ("time.time", "time.monotonic"):
            monkeypatch.setattr(name, lambda: self.now)

    def passes(self, seconds: float) -> None:
        """So much time passes."""
        self.now += seconds


def working_clock(monkeypatch: pytest.MonkeyPatch, step: float = 0.5, scored: float = 0.1) -> Clock:
    """A clock on which a training step and a scored batch take so many seconds; all else, none."""
    clock = Clock(monkeypatch)

    def timed(name: str, seconds: float) -> Callable[..., Any]:
        original = getattr(AnomalyDetector, name)

        def run(self: AnomalyDetector, *arguments: Any) -> Any:
            clock.passes(seconds)
            return original(self, *arguments)

        return run

    for name, seconds in (("training_step", step), ("detect", scored)):
        monkeypatch.setattr(AnomalyDetector, name, timed(name, seconds))
    return clock
