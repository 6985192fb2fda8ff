"""Residual blocks by rows compute what diffusers' blocks compute."""

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from lightning_ad.speed import half_residual
from lightning_ad.speed.half_precision import HalfPrecision
from lightning_ad.speed.half_products import HalfProducts
from lightning_ad.speed.half_residual import HalfResidual, normalization


class Blocks(nn.Module):
    """Convolutions at the ends, which stay in float32, and blocks with and without a shortcut."""

    def __init__(self, temb_channels=None):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 1)
        widths = {"temb_channels": temb_channels, "groups": 4}
        self.same = ResnetBlock2D(in_channels=8, out_channels=8, **widths)
        self.wider = ResnetBlock2D(in_channels=8, out_channels=12, **widths)
        self.last = nn.Conv2d(12, 3, 1)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, x, temb=None):
        return self.last(self.wider(self.same(self.first(x), temb), temb))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = Blocks()

    def decode(self, latent):
        return self.decoder(latent)


@pytest.fixture(params=[1, 200, 1 << 17])  # one row at once, rows that leave a rest, all
def rows(request, monkeypatch):
    monkeypatch.setattr(half_residual, "ROWS", request.param)


@torch.no_grad()
def test_blocks_are_diffusers(rows):
    network, x = Blocks().eval(), torch.randn(2, 3, 7, 10)
    same = HalfProducts(network, torch.float32)
    assert [type(m) for m in (same.network.same, same.network.wider)] == [HalfResidual] * 2
    torch.testing.assert_close(same(x), network(x), rtol=1e-4, atol=1e-5)
    rounded = HalfProducts(network, torch.bfloat16)
    torch.testing.assert_close(rounded(x), network(x), rtol=0.02, atol=0.02)


@torch.no_grad()
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_normalization_is_torchs_also_far_from_zero(layout):
    norm = nn.GroupNorm(4, 8, eps=1e-6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(3, 8, 40, 50) + 20 * torch.randn(8, 1, 1)
    x = x.to(memory_format=layout)
    scale, shift = normalization(x, norm)
    torch.testing.assert_close(x * scale + shift, norm(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_normalization_does_not_depend_on_neighbours():
    norm, x = nn.GroupNorm(4, 8), torch.randn(5, 8, 40, 50)
    together, alone = normalization(x, norm), normalization(x[:1], norm)
    for many, one in zip(together, alone, strict=True):
        torch.testing.assert_close(many[:1], one, rtol=0, atol=0)


@torch.no_grad()
def test_blocks_with_a_time_embedding_stay():
    network = Blocks(temb_channels=6).eval()
    half = HalfProducts(network, torch.float32)
    assert not any(isinstance(module, HalfResidual) for module in half.modules())
    x, temb = torch.randn(2, 3, 7, 10), torch.randn(2, 6)
    torch.testing.assert_close(half(x, temb), network(x, temb), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_pair_rounds_by_its_difference(rows):
    network, b = Decoder().eval(), torch.randn(1, 3, 7, 10)
    a = b + 1e-3 * torch.randn_like(b)
    exact = network.decode(a) - network.decode(b)

    def error(half):
        decoded_a, decoded_b = half.decode(torch.cat([a, b])).float().chunk(2)
        return float((decoded_a - decoded_b - exact).norm() / exact.norm())

    paired = error(HalfProducts(network, torch.bfloat16, pairs=True))
    assert 0 < paired < 0.02
    assert error(HalfPrecision(network, torch.bfloat16)) > 5 * paired
