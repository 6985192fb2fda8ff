"""Time is shared in the proportions of the plan, and every process gets the same."""

import pytest

from lightning_ad.experiment.time_budget import Stretch, Timetable, duration, share_time


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("20m", 1200), ("1h30m", 5400), ("2h5s", 7205), ("3m", 180)]
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "m", "3x", "0s", "1.5h", "-3m", "30m1h", "3 m"])
def test_what_is_no_duration_is_said(text):
    with pytest.raises(ValueError, match=r"is no duration: expected one such as 90s, 20m or 1h30m"):
        duration(text)


def test_steps_keep_the_plans_proportions_and_fill_the_time():
    phases = [Stretch("denoise", 300, 10, 0.5), Stretch("adapt", 100, 10, 2.0)]
    denoise, adapt = share_time(phases, 700)
    assert denoise / adapt == pytest.approx(3, rel=0.01)
    assert 700 - 2.5 <= denoise * 0.5 + adapt * 2.0 <= 700


def test_no_phase_gets_less_than_an_epoch():
    phases = [Stretch("denoise", 300, 10, 0.5), Stretch("adapt", 10, 10, 2.0)]
    assert share_time(phases, 60) == [80, 10]  # 20 of 60 seconds go to the one epoch of adapt
    assert share_time(phases, 1) == [10, 10]
    assert share_time(phases, -5) == [10, 10]


def test_what_is_done_counts():
    phases = [Stretch("denoise", 300, 10, 1.0, done=250), Stretch("adapt", 100, 10, 1.0)]
    assert share_time(phases, 150) == [300, 100]
    assert share_time(phases, 60) == [250, 60]  # nothing is taken back


def test_a_finished_phase_holds_the_others_to_its_proportion():
    finished = Stretch("denoise", 300, 10, 1.0, done=150, finished=True)
    assert share_time([finished, Stretch("adapt", 100, 10, 1.0)], 1000) == [150, 50]
    assert share_time([finished, Stretch("adapt", 100, 10, 1.0)], 20) == [150, 20]


def test_a_run_without_a_deadline_keeps_its_plan_and_learns_when_it_ends(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 0.0)
    table = Timetable([Stretch("denoise", 100, 10, 1.0), Stretch("adapt", 10, 10, 2.0)], 30)
    assert table.end == 150
    table.revise("denoise", 50, 2.0)
    assert table.lengths == [100, 10]
    assert table.limits("denoise") is None
    assert table.end == 50 * 2 + 1.25 * (20 + 30)  # slower, too, but perhaps not for long
    table.revise("denoise", 60, 0.5)
    assert table.end == 20 + 10 + 30  # training is faster after all, scoring as measured
    table.finish("denoise", 100)
    assert table.end == 10 + 30


def test_a_deadline_is_kept_when_the_machine_slows_down(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    table = Timetable([Stretch("denoise", 100, 10, 1.0)], 20, deadline=1000 + 220)
    assert table.limits("denoise") == (200, 20)
    now += 150  # and only 50 steps done
    table.revise("denoise", 50, 3.0)
    assert table.limits("denoise") == (65, 7)  # 45 seconds are left, 25 of them for scoring
    assert 1210 < table.end <= 1220


def test_the_least_that_works_is_an_epoch_of_each_phase_and_scoring():
    table = Timetable([Stretch("denoise", 100, 10, 1.0), Stretch("adapt", 10, 10, 2.0)], 30, 0.0)
    assert table.least == 60


def test_the_forecast_names_phases_epochs_and_the_end(monkeypatch):
    table = Timetable([Stretch("denoise", 410, 10, 2.0), Stretch("adapt", 15, 10, 2.0)], 30)
    denoise, adapt, rest = table.describe()
    assert denoise == "denoise: 41 epochs, about 14 min"
    assert adapt == "adapt: 1.5 epochs, about 30 s"
    assert rest.startswith("calibration and test: about 30 s; whole run ends ")
    assert rest.endswith(", in 15 min")
