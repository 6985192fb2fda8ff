"""Thresholds from normal images, and storage of what calibration found."""

import math

import pytest
import torch

from lightning_ad.detector.calibration import Calibration
from lightning_ad.experiment.calibrate import conformal_quantile


@pytest.mark.parametrize("count", [19, 99, 150])
def test_conformal_quantile_keeps_its_false_alarm_rate(count):
    generator = torch.Generator().manual_seed(0)
    rate, alarms = 0.1, []
    for _ in range(2000):
        scores = torch.rand(count + 1, generator=generator)
        alarms.append(float(scores[0]) > conformal_quantile(scores[1:], rate))
    expected = 1 - math.ceil((count + 1) * (1 - rate)) / (count + 1)
    assert expected <= rate
    assert sum(alarms) / len(alarms) == pytest.approx(expected, abs=0.02)


def test_too_few_scores_give_the_largest():
    assert conformal_quantile(torch.tensor([1.0, 3.0, 2.0]), 0.01) == 3.0


def test_calibration_loads_tensors_of_any_shape_and_forgets_what_it_had():
    source, target = Calibration(), Calibration()
    source["bank"] = torch.randn(5, 7)
    source["ratio"] = torch.tensor(2.0)
    target["bank"] = torch.zeros(1)
    target["old"] = torch.zeros(3)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target["bank"], source["bank"]) and target["ratio"] == 2.0
    assert "old" not in target


def test_missing_calibration_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"no calibrated 'ratio'.*lightning fit"):
        Calibration()["ratio"]
