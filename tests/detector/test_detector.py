"""What the base class refuses of a method under development."""

import pytest
import torch

from lightning_ad import AnomalyDetector
from tests.methods.tiny import Brightness


class HalfSize(Brightness):
    def compare(self, image, category):
        return image, {"pixel": image[:, :1, ::2, ::2]}


class ThreeChannels(Brightness):
    def fuse(self, parts, category):
        return parts["pixel"].expand(-1, 3, -1, -1)


class WithoutOptimizer(Brightness):
    configure_optimizers = AnomalyDetector.configure_optimizers


class TwoMaps(AnomalyDetector):
    def compare(self, image, category):
        return None, {"one": image[:, :1], "other": image[:, 1:2]}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (HalfSize, r"HalfSize: compare's 'pixel' must be .* \(2, 1, 8, 8\), not \(2, 1, 4, 4\)"),
        (ThreeChannels, r"ThreeChannels: fuse's map must be .* \(2, 1, 8, 8\), not \(2, 3, 8"),
    ],
)  # fmt: skip
def test_a_map_of_another_shape_names_who_returned_it(method, message):
    with pytest.raises(ValueError, match=message):
        method().detect(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))


def test_a_phase_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match=r"Brightness.trained\(\) names no parameters in phase"):
        Brightness().enter_phase("denoise")


def test_a_method_without_optimizer_cannot_enter_a_phase():
    with pytest.raises(NotImplementedError, match="no `configure_optimizers` for its phase 'denoi"):
        WithoutOptimizer().enter_phase("denoise")


def test_several_maps_need_a_fusion():
    with pytest.raises(NotImplementedError, match="returns the maps one, other: write `fuse`"):
        TwoMaps().detect(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long))
