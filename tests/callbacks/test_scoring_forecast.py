"""A test and a prediction say when they end, once they know."""

import logging
import time
from types import SimpleNamespace

import pytest
import torch

from lightning_ad.callbacks import scoring_forecast
from lightning_ad.callbacks.scoring_forecast import ScoringForecast
from tests.callbacks.example import Data, Detector, trainer
from tests.clock import Clock

AT_ONCE = 4  # of the example's loaders


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger=scoring_forecast.__name__)
    return lambda: [r.message for r in caplog.records if r.name == scoring_forecast.__name__]


class Slow(Detector):
    """Scores two images in a second, but for the first batch, which warms up."""

    def __init__(self, clock):
        super().__init__(0.5)
        self.passes = clock.passes

    def predict_step(self, batch, batch_idx):
        self.passes(2.0 if batch_idx else 30.0)
        return super().predict_step(batch, batch_idx)

    test_step = predict_step


def at(moment):
    return time.strftime("%H:%M", time.localtime(moment))


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_it_comes_after_seconds_and_again_when_they_have_doubled(tmp_path, clock, said, stage):
    began = clock.now
    caller = trainer(tmp_path, ScoringForecast())
    getattr(caller, stage)(Slow(clock), Data(60, tmp_path / "data"))
    ends = at(began + 30 + (60 - AT_ONCE) / 2)
    assert clock.now == began + 58
    assert said() == [
        f"scored 16 of 60 images, 2 images/s: ends {ends}, in 22 s",
        f"scored 28 of 60 images, 2 images/s: ends {ends}, in 16 s",
    ]  # 12 seconds later none, as few are left


def test_what_ends_in_seconds_says_nothing(tmp_path, clock, said):
    trainer(tmp_path, ScoringForecast()).predict(Slow(clock), Data(32, tmp_path / "data"))
    assert said() == []


def test_batches_left_out_do_not_count(tmp_path, clock, said):
    caller = trainer(tmp_path, ScoringForecast(), limit_predict_batches=11)
    caller.predict(Slow(clock), Data(60, tmp_path / "data"))
    assert [line.rpartition(": ends ")[0] for line in said()] == [
        "scored 16 of 44 images, 2 images/s"
    ]


@pytest.mark.parametrize(("rank", "lines"), [(0, 1), (1, 0)])
def test_of_several_processes_the_first_speaks_for_all(clock, said, rank, lines):
    loader = torch.utils.data.DataLoader(range(90), batch_size=AT_ONCE)
    of_two = SimpleNamespace(
        world_size=2, is_global_zero=rank == 0, predict_dataloaders=loader,
        num_predict_batches=[12], datamodule=SimpleNamespace(arrivals=None),
    )  # fmt: skip
    forecast = ScoringForecast()
    forecast.on_predict_start(of_two, None)
    for _ in range(3):
        clock.passes(3.0)
        forecast.on_predict_batch_end(of_two, None, None, {"path": ["a"] * AT_ONCE}, 0)
    assert len(said()) == lines
    if lines:  # 16 images in 6 seconds by both, 66 are left
        assert said()[0].startswith("scored 24 of 90 images, 2.7 images/s: ends ")
        assert said()[0].endswith(", in 25 s")


def test_a_folder_that_is_watched_has_no_end(clock, said):
    watched = SimpleNamespace(
        world_size=1, is_global_zero=True, datamodule=SimpleNamespace(arrivals=object()),
        predict_dataloaders=torch.utils.data.DataLoader(range(100), batch_size=None),
        num_predict_batches=[float("inf")],
    )  # fmt: skip
    forecast = ScoringForecast()
    forecast.on_predict_start(watched, None)
    for _ in range(9):
        clock.passes(3.0)
        forecast.on_predict_batch_end(watched, None, None, {"path": ["a"]}, 0)
    assert said() == []
