"""Under autocast every method scores with networks in half precision, else with its own."""

import pytest
import torch
from torch import nn

from lightning_ad.speed.half_precision import HalfPrecision
from tests.methods.test_d3ad import calibrated as d3ad
from tests.methods.test_ddad import ddad
from tests.methods.test_deco import deco
from tests.methods.test_texture import texture
from tests.methods.tiny import images, same_weights, tiny_denoiser, weights_of

METHODS = [ddad, d3ad, deco, texture, lambda: texture(attention_threshold=1.0)]
NAMES = ["ddad", "d3ad", "deco", "texture", "masked texture"]


def detect(detector, half):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        return detector.detect(images(2), torch.tensor([0, 1]))


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_half_precision_is_close_and_leaves_the_weights_alone(method):
    detector = method()
    before = weights_of(detector)
    exact, half = detect(detector, half=False), detect(detector, half=True)
    assert not torch.equal(half.anomaly_map, exact.anomaly_map)
    assert half.anomaly_map.dtype == half.reconstruction.dtype == torch.float32
    both = torch.stack([exact.anomaly_map.flatten(), half.anomaly_map.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99
    assert same_weights(detector, before)
    assert torch.equal(detect(detector, half=False).anomaly_map, exact.anomaly_map)


@pytest.mark.parametrize("method", METHODS[:4], ids=NAMES[:4])
def test_half_precision_follows_training(method):
    detector = method()
    first = detect(detector, half=True).anomaly_map
    detector.train()
    with torch.no_grad():
        detector.denoiser.unet.conv_out.weight.mul_(3)
    detector.eval()
    assert not torch.allclose(first, detect(detector, half=True).anomaly_map, atol=1e-3)


def test_inside_no_operation_is_converted():
    network = HalfPrecision(tiny_denoiser(), torch.bfloat16)
    seen = []
    for module in network.network.unet.modules():
        if isinstance(module, (nn.Conv2d, nn.GroupNorm)):
            module.register_forward_hook(lambda _, inputs, output: seen.append(output.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(images(1), torch.tensor([3]))
    assert set(seen) == {torch.bfloat16}
