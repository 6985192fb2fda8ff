"""Durations and moments in words."""

import time

from lightning_ad.reports.times import at_and_in, spoken
from tests.clock import Clock


def test_spoken_durations():
    assert [spoken(s) for s in (0.4, 48, 160, 845, 3599, 11100)] == [
        "0 s", "48 s", "2 min 40 s", "14 min", "1 h 00 min", "3 h 05 min",
    ]  # fmt: skip


def test_a_moment_is_told_with_its_date_unless_it_is_today(monkeypatch):
    clock = Clock(monkeypatch)
    clock.now = time.mktime((2027, 3, 5, 23, 50, 0, 0, 0, -1))
    assert at_and_in(clock.now + 48) == "23:50, in 48 s"
    assert at_and_in(clock.now + 3600) == "06 Mar 2027 00:50, in 1 h 00 min"
