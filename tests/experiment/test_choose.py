"""Settings that calibration chooses by pasted defects, without a label."""

import pytest
import torch
from lightning.pytorch import Trainer

from data_modules import MVTecAD
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.experiment.calibrate import calibrate
from tests.fakes import write_mvtec


class Sharpness(AnomalyDetector):
    """Maps of edges, which pasted defects have, or of their lack; which of them is to be chosen."""

    edges = 1.0

    def __init__(self, values):
        super().__init__(false_alarm_rate=0.2)
        self.choices = {"edges": values}

    def phases(self):
        return []

    def compare(self, image, category):
        gray = image.mean(1, keepdim=True)
        edges = (gray - gray.roll(1, 3)).abs() + (gray - gray.roll(1, 2)).abs()
        sign = self.chosen("edges", category) * (1 - 2 * category.clamp(min=0))
        return None, {"edges": sign.view(-1, 1, 1, 1) * edges}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_mvtec(tmp_path_factory.mktemp("choose"), train=12)
    return MVTecAD(str(root), image_size=32, num_workers=0, cache=False, val_fraction=0.5)


@pytest.mark.parametrize("values", [(1.0, -1.0), (-1.0, 1.0)])
def test_each_category_gets_the_value_that_locates_pasted_defects(data, values):
    """The second category's map has the other sign, so it wants the other value."""
    detector = Sharpness(values)
    detector.meet(data, "fit")
    calibrate(detector, Trainer(accelerator="cpu", logger=False), data)
    assert detector.calibration["edges"].tolist()[:2] == [1.0, -1.0]
    category = torch.tensor([1, 0, -1])
    assert detector.chosen("edges", category)[:2].tolist() == [-1.0, 1.0]


def test_before_calibration_a_setting_has_its_own_value():
    chosen = Sharpness((5.0, 6.0)).chosen("edges", torch.tensor([0, -1]))
    assert chosen.tolist() == [1.0, 1.0]
