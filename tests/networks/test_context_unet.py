"""DeCo-Diff's U-Net: published sizes, the constant cross-attention, the null class."""

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor

from lightning_ad.networks import ContextUNet


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    return latents, torch.tensor([1, 8]), torch.tensor([0, 2])


@pytest.fixture
def unet() -> ContextUNet:
    torch.manual_seed(0)
    return ContextUNet(categories=3, base=16, heads=2, null_class=True).eval()


@pytest.mark.parametrize(
    ("size", "millions"), [("XS", 24.75), ("S", 98.8), ("M", 222), ("L", 395), ("XL", 613)]
)
def test_sizes_have_the_published_number_of_parameters(size, millions):
    with torch.device("meta"):
        unet = ContextUNet(categories=15, size=size)
    count = sum(parameter.numel() for parameter in unet.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=2e-3)


def test_constant_cross_attention_equals_the_ordinary_one(unet, inputs):
    def output_and_gradients() -> list[Tensor]:
        unet.zero_grad()
        d = unet(*inputs)
        d.square().mean().backward()
        return [d.detach(), *(parameter.grad.clone() for parameter in unet.parameters())]

    constant = output_and_gradients()
    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.attn2.set_processor(AttnProcessor2_0())
    for ours, ordinary in zip(constant, output_and_gradients(), strict=True):
        torch.testing.assert_close(ours, ordinary, rtol=1e-4, atol=1e-6)


def test_every_parameter_but_absent_classes_gets_a_gradient_in_training(unet, inputs):
    unet(*inputs).sum().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None] == []


def test_the_class_matters_and_the_null_class_is_one_of_its_own(unet, inputs):
    latents, t, category = inputs
    with torch.inference_mode():
        given = unet(latents, t, category)
        null = unet(latents, t, torch.full_like(category, unet.null_category))
    assert unet.null_category == 3
    assert not torch.allclose(given, null)


def test_a_network_without_null_class_says_so():
    with pytest.raises(ValueError, match="null_class"):
        _ = ContextUNet(categories=3, base=16, heads=2).null_category
