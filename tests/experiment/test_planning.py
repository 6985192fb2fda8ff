"""A run says when it ends, ends when it has to, and is otherwise the run it would have been."""

import json
import logging
import math
import re
from types import SimpleNamespace

import pytest

from data_modules import MTD
from lightning_ad.callbacks import forecast
from lightning_ad.cli import main
from lightning_ad.detector.detection import Phase
from lightning_ad.experiment import planning, probe
from lightning_ad.experiment.planning import Planner
from lightning_ad.experiment.run_folder import RunFolder
from lightning_ad.experiment.time_budget import TimeLimit
from tests.checkpoints import assert_same_weights, stopped_in_second_epoch
from tests.clock import working_clock
from tests.fakes import texture, write, write_mtd
from tests.shrunk import fit_ddad

pytestmark = pytest.mark.whole

NEVER, ALWAYS = 10**9, 0


@pytest.fixture
def clock(monkeypatch):
    return working_clock(monkeypatch)


@pytest.fixture
def arguments(tmp_path, clock, monkeypatch):
    root = write_mtd(tmp_path / "mtd", train=12)
    monkeypatch.setattr(forecast, "SECONDS_BETWEEN_LOOKS", 0.5)

    def make(run: str, *more: str) -> list[str]:
        return fit_ddad(root, tmp_path / run, tmp_path / "cache", *more)

    return make


def test_measuring_leaves_no_trace(arguments, tmp_path, monkeypatch, caplog):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for run, least in (("plain", NEVER), ("forecast", ALWAYS)):
        monkeypatch.setattr(planning, "WORTH_A_FORECAST", least)
        with caplog.at_level(logging.INFO):
            main(arguments(run))
        assert ("whole run ends" in caplog.text) == (least == ALWAYS)
    assert_same_weights(tmp_path / "plain/final.ckpt", tmp_path / "forecast/final.ckpt")
    files = [{p.name for p in (tmp_path / run).rglob("*")} for run in ("plain", "forecast")]
    assert files[0] == files[1]
    assert not list(here.iterdir())


def test_a_run_ends_in_its_time_with_everything_done(arguments, tmp_path, clock, caplog):
    start = clock.now
    with caplog.at_level(logging.INFO):
        main(arguments("run", "--time=25s"))
    assert 25 - probe.TAIL - 2 < clock.now - start <= 25
    assert re.search(r"denoise: [\d.]+ epochs, about \d+ s\n", caplog.text)
    assert "calibration and test: about" in caplog.text
    assert (tmp_path / "run/metrics.json").exists()
    training = json.loads((tmp_path / "run/training.json").read_text())
    assert training["denoise/steps"] == pytest.approx(1.5 * training["adapt/steps"], abs=1.5)


def test_a_run_on_good_images_alone_has_a_forecast_too(arguments, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(planning, "WORTH_A_FORECAST", ALWAYS)
    root = tmp_path / "part"
    for index in range(12):
        write(root / "train" / f"{index:02d}.png", texture(index, 40, 40))
    data = ["--data.class_path=Folder", f"--data.root={root}"]
    with caplog.at_level(logging.INFO):
        main(arguments("run", *data))
    assert "whole run ends" in caplog.text and "no test images" in caplog.text
    assert (tmp_path / "run/final.ckpt").exists()


def test_too_short_a_time_names_the_least_that_works(arguments, tmp_path):
    with pytest.raises(SystemExit, match=r"are left, too short .* give --time \d+s or more"):
        main(arguments("run", "--time=1s"))
    assert not (tmp_path / "run/denoise.ckpt").exists()


@pytest.mark.parametrize("time_given", ["5", "1.5h", "soon"])
def test_a_time_that_is_none_is_named(arguments, time_given):
    with pytest.raises(SystemExit, match=rf"--time '{time_given}' is no duration: expected"):
        main(arguments("run", f"--time={time_given}"))


def test_endless_phases_have_no_proportions(arguments):
    with pytest.raises(SystemExit, match=r"'denoise' has none: set trainer.max_epochs"):
        main(arguments("run", "--time=20s", "--trainer.max_epochs=-1"))


def test_an_interrupted_run_keeps_its_deadline_or_takes_a_new_one(
    arguments, tmp_path, clock, monkeypatch, caplog
):
    monkeypatch.setattr(probe, "MOST_STEPS", 0)  # the probe, too, would come to the second epoch
    with stopped_in_second_epoch("denoise"):
        main(arguments("run", "--time=10m"))
    run = RunFolder(tmp_path / "run")
    kept = planning.deadline_of(run, TimeLimit(clock.now))
    assert kept is not None and clock.now < kept < clock.now + 600
    assert planning.deadline_of(run, TimeLimit(1e10, 5)) == 1e10 + 5
    assert planning.deadline_of(run, TimeLimit(clock.now)) == 1e10 + 5
    planning.deadline_of(run, TimeLimit(1e9, 5))
    with pytest.raises(SystemExit, match=r"was over at .* 2001.*: give it more with --time"):
        main(arguments("run"))
    with caplog.at_level(logging.INFO, logger=forecast.__name__):
        main(arguments("run", "--time=30s"))
    first = next(r.message for r in caplog.records if r.name == forecast.__name__)
    assert first.startswith("denoise: epoch 2 of ")
    assert (tmp_path / "run/metrics.json").exists()


@pytest.mark.parametrize("own", [None, 2])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_steps_of_an_epoch_are_those_of_the_phases_own_batches(
    arguments, tmp_path, own, accumulated
):
    data = MTD(str(write_mtd(tmp_path / "tiles", train=12)), batch_size=4, num_workers=0)
    data.setup("fit")
    data.train_batch_size = own or data.batch_size
    trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=accumulated)
    planner = Planner(None, data, RunFolder(tmp_path), lambda phase: trainer)
    steps = math.ceil(len(data.train_dataloader()) / accumulated)
    assert planner._epoch(Phase("adapt", batch_size=own)) == steps
