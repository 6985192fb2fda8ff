"""SiLU in place changes neither results nor gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_ad.speed.silu import InPlaceSiLU
from tests.methods.tiny import images, tiny_denoiser
from tests.methods.tiny_latent import tiny_context_unet


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 8)])
def test_only_feature_maps_without_gradients_are_overwritten(shape):
    x = torch.randn(shape)
    before, expected = x.clone(), F.silu(x)
    assert torch.equal(InPlaceSiLU()(x), expected) and torch.equal(x, before)
    with torch.no_grad():
        result = InPlaceSiLU()(x)
    assert torch.equal(result, expected)
    assert torch.equal(x, expected if len(shape) == 4 else before)


@pytest.mark.parametrize("pixels", [True, False])
def test_networks_compute_what_they_compute_with_gradients(pixels):
    network = tiny_denoiser() if pixels else tiny_context_unet()
    x = images(2) if pixels else torch.randn(2, 4, 8, 8)
    inputs = (x, torch.tensor([3, 9]), *([] if pixels else [torch.tensor([0, 1])]))
    silus = [part for part in network.modules() if isinstance(part, InPlaceSiLU)]
    maps = sum(isinstance(part, nn.SiLU) for part in network.modules())
    assert len(silus) > 5 and maps == 1  # the one left is in the embedding of time
    expected = network(*inputs).detach()
    with torch.no_grad():
        assert torch.equal(network(*inputs), expected)
