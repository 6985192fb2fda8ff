"""Networks that multiply in half precision: what they compute, and how far rounding reaches."""

import pytest
import torch
from torch import nn

from lightning_ad.networks import KLAutoencoder, Taef2Autoencoder, TinyAutoencoder
from lightning_ad.speed.folding import fold_upsampling
from lightning_ad.speed.half_precision import HalfLayer, HalfPrecision, HalfProducts
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
    """Latents that differ by a hundredth of their deviation."""
    torch.manual_seed(1)
    b = torch.randn(2, autoencoder.channels, 4, 6)
    return b + 0.01 * torch.randn_like(b), b


@pytest.mark.parametrize("build", [taef2, tiny, kl])
@torch.no_grad()
def test_products_in_float32_are_the_network(build):
    autoencoder = build()
    a, b = pair(autoencoder)
    same = HalfProducts(autoencoder, torch.float32)
    assert any(isinstance(module, HalfLayer) for module in same.modules())
    expected = autoencoder.decode_pair(a, b)
    for found, image in zip(same.decode_pair(a, b), expected, strict=True):
        torch.testing.assert_close(found, image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(same.decode(a), autoencoder.decode(a), rtol=1e-4, atol=1e-5)
    image = expected[0]
    torch.testing.assert_close(same.encode(image), autoencoder.encode(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [taef2, tiny, kl])
@torch.no_grad()
def test_rounding_hardly_touches_the_difference_of_a_pair(build):
    autoencoder = build()
    a, b = pair(autoencoder)

    def difference(network):
        decoded_a, decoded_b = network.decode_pair(a, b)
        return decoded_a.float() - decoded_b.float()

    exact = difference(autoencoder)

    def error(network):
        return float((difference(network) - exact).norm() / exact.norm())

    paired = error(HalfProducts(autoencoder, torch.bfloat16))
    assert 0 < paired < 0.1
    assert error(HalfPrecision(autoencoder, torch.bfloat16)) > 10 * paired


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
def test_light_autoencoders_encode_in_float32(build, exact):
    autoencoder = build()
    image = torch.rand(2, 3, 32, 48) * 2 - 1
    expected = autoencoder.encode(image)
    found = HalfProducts(autoencoder, torch.bfloat16).encode(image)
    assert torch.equal(found, expected) == exact


@torch.no_grad()
def test_a_pair_leaves_other_calls_alone():
    autoencoder = taef2()
    half = HalfProducts(autoencoder, torch.bfloat16)
    a, b = pair(autoencoder)
    before = half.decode(a)
    half.decode_pair(a, b)
    assert torch.equal(half.decode(a), before)


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
    HalfProducts(autoencoder, torch.bfloat16).decode_pair(*pair(autoencoder))
    assert set(seen) == {torch.float32}
