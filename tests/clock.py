"""A clock that moves with what happens, however fast the machine is."""

import pytest


class Clock:
    """Stands for `time.time` and `time.monotonic` until the test is over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1.8e9
        for name in ("time.time", "time.monotonic"):
            monkeypatch.setattr(name, lambda: self.now)

    def passes(self, seconds: float) -> None:
        """So much time passes."""
        self.now += seconds
