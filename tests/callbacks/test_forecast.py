"""A phase keeps to the time it is given, and a log tells where it is."""

import logging
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_ad.callbacks import forecast
from lightning_ad.callbacks.forecast import EpochLines, Forecast
from lightning_ad.experiment.time_budget import Stretch, Timetable
from tests.clock import Clock


class Slow(LightningModule):
    """Steps of 10 ms, with a learning rate that falls to nothing over the whole phase."""

    phase = "denoise"

    def __init__(self, passes: Callable[[float], None]) -> None:
        super().__init__()
        self.passes = passes
        self.layer = torch.nn.Linear(1, 1)
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        self.passes(0.01)
        loss = self.layer(batch).square().mean()
        self.log("denoise/loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 1.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1 - step / self.trainer.estimated_stepping_batches
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_end(self, *_):
        self.rates.append(self.lr_schedulers().get_last_lr()[0])


def fit(model, folder, callbacks, **options):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, callbacks=callbacks,
        **{"max_epochs": 3} | options,
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.ones(10, 1), batch_size=1))
    return trainer


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(forecast, "SECONDS_BETWEEN_LOOKS", 0.1)
    return Clock(monkeypatch)


@pytest.mark.parametrize("guess", [0.002, 0.05])
def test_a_phase_ends_with_its_time_whatever_was_measured_before(tmp_path, clock, guess):
    start = clock.now
    plan = Timetable([Stretch("denoise", 30, 10, guess)], 0, deadline=start + 2)
    model = Slow(clock.passes)
    trainer = fit(model, tmp_path, [Forecast(plan, "denoise")])
    assert clock.now - start == pytest.approx(2, abs=0.011)
    assert trainer.global_step == pytest.approx(200, abs=1)  # many times the plan
    assert plan.lengths == [trainer.global_step]
    assert model.rates[-1] < 0.1 < model.rates[len(model.rates) // 2]  # over what was trained


def test_without_a_deadline_the_plan_is_trained_and_its_end_forecast(tmp_path, clock):
    plan = Timetable([Stretch("denoise", 30, 10, 100.0)], 5.0)
    trainer = fit(Slow(clock.passes), tmp_path, [Forecast(plan, "denoise")])
    assert (trainer.global_step, trainer.max_epochs) == (30, 3)
    assert plan.phases[0].seconds == pytest.approx(0.01)


def test_steps_are_the_optimizers_when_gradients_accumulate(tmp_path, clock):
    plan = Timetable([Stretch("denoise", 15, 5, 1.0)], 0)
    fit(Slow(clock.passes), tmp_path, [Forecast(plan, "denoise")], accumulate_grad_batches=2)
    assert plan.phases[0].seconds == pytest.approx(0.02)
    assert plan.lengths == [15]


def test_a_log_has_one_line_for_each_epoch(tmp_path, clock, caplog):
    plan = Timetable([Stretch("denoise", 30, 10, 1.0)], 5.0)
    with caplog.at_level(logging.INFO, logger=forecast.__name__):
        fit(Slow(clock.passes), tmp_path, [Forecast(plan, "denoise"), EpochLines()])
    lines = [r.message for r in caplog.records if r.name == forecast.__name__]
    assert len(lines) == 3
    assert lines[1].startswith("denoise: epoch 2 of 3, loss ")
    assert ", whole run ends " in lines[1]
