"""Networks that multiply in half precision: what they compute, and how far rounding reaches."""

import pytest
import torch
from torch import nn

from lightning_ad.networks import KLAutoencoder, Taef2Autoencoder, TinyAutoencoder
from lightning_ad.speed.faster import faster
from lightning_ad.speed.folding import fold_upsampling
from lightning_ad.speed.half_products import HalfLayer, HalfProducts
from tests.methods.tiny_latent import tiny_context_unet


def taef2():
    torch.manual_seed(0)
    return Taef2Autoencoder("no file", "no file")


def kl():
    torch.manual_seed(0)
    architecture = {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "block_out_channels": [8, 16],
        "norm_num_groups": 4,
    }
    autoencoder = KLAutoencoder(architecture=architecture)
    fold_upsampling(autoencoder)
    return autoencoder


def tiny():
    torch.manual_seed(0)
    return TinyAutoencoder(architecture={"latent_channels": 4})


def pair(autoencoder):
    """Two latents, and two that differ from them by a hundredth of their deviation."""
    torch.manual_seed(1)
    b = torch.randn(2, autoencoder.channels, 4, 6)
    return torch.cat([b + 0.01 * torch.randn_like(b), b])


@pytest.mark.parametrize("build", [taef2, tiny, kl])
@torch.no_grad()
def test_products_in_float32_are_the_network(build):
    autoencoder = build()
    latents = pair(autoencoder)
    image = autoencoder.decode(latents)
    for pairs in (False, True):
        same = HalfProducts(autoencoder, torch.float32, pairs)
        assert any(isinstance(module, HalfLayer) for module in same.modules())
        torch.testing.assert_close(same.decode(latents), image, rtol=1e-4, atol=1e-5)
        expected = autoencoder.encode(image)
        torch.testing.assert_close(same.encode(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [taef2, tiny, kl])
@torch.no_grad()
def test_rounding_hardly_touches_the_difference_of_a_pair(build):
    autoencoder = build()

    def difference(network):
        decoded_a, decoded_b = network.decode(pair(autoencoder)).float().chunk(2)
        return decoded_a - decoded_b

    exact = difference(autoencoder)

    def error(network):
        return float((difference(network) - exact).norm() / exact.norm())

    paired = error(faster(autoencoder, torch.bfloat16, pairs=True))
    assert 0 < paired < 0.1
    assert error(faster(autoencoder, torch.bfloat16)) > 10 * paired


@torch.no_grad()
def test_only_layers_between_the_ends_round():
    network = tiny_context_unet(null_class=True)
    half = HalfProducts(network, torch.bfloat16)
    unet = half.network.unet
    assert {type(unet.conv_in), type(unet.conv_out)} == {nn.Conv2d}
    assert {p.dtype for p in (*unet.conv_in.parameters(), *unet.conv_norm_out.parameters())} == {
        torch.float32
    }
    inside = [module for module in half.modules() if isinstance(module, HalfLayer)]
    assert {layer.layer.weight.dtype for layer in inside} == {torch.bfloat16}
    assert len(inside) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules()) - 2
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(("build", "exact"), [(taef2, True), (tiny, True), (kl, False)])
@torch.no_grad()
def test_small_autoencoders_encode_in_float32(build, exact):
    autoencoder = build()
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    expected = autoencoder.encode(image)
    for pairs in (False, True):
        found = HalfProducts(autoencoder, torch.bfloat16, pairs).encode(image)
        assert torch.equal(found, expected) == exact


@torch.no_grad()
def test_attention_multiplies_in_half_precision_but_for_a_pair(monkeypatch):
    attend, seen = nn.functional.scaled_dot_product_attention, []

    def spy(query, *others, **settings):
        seen.append(query.dtype)
        return attend(query, *others, **settings)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", spy)
    network = tiny_context_unet()
    latent, t, category = torch.randn(2, network.channels, 8, 8), torch.tensor(3), torch.zeros(2)
    HalfProducts(network, torch.bfloat16)(latent, t, category.long())
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    autoencoder = kl()
    HalfProducts(autoencoder, torch.bfloat16, pairs=True).decode(pair(autoencoder))
    assert set(seen) == {torch.float32}
