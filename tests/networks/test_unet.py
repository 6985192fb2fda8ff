"""The pixel U-Net: sizes of the papers, settings that do not fit, shapes."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from lightning_ad.networks import DiffusionUNet


@pytest.mark.parametrize(
    ("settings", "millions"),
    [
        ({"image_size": 256}, 32.95),
        ({"image_size": 256, "base": 32, "heads": 2, "dropout": 0.3}, 8.26),
        (
            {
                "image_size": 32,
                "base": 192,
                "heads": 8,
                "channels": 4,
                "attention_at": [32, 16, 8, 4],
            },
            281.1,
        ),
    ],
    ids=["DDAD", "DDAD-S", "D3AD"],
)
def test_published_networks_have_the_published_number_of_parameters(settings, millions):
    with torch.device("meta"):
        unet = DiffusionUNet(**settings)
    count = sum(parameter.numel() for parameter in unet.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=5e-4)


def test_a_small_network_runs_with_a_timestep_per_image():
    torch.manual_seed(0)
    unet = DiffusionUNet(image_size=32, base=16, multipliers=[1, 2], blocks_per_level=1).eval()
    xt, t = torch.randn(2, 3, 32, 32), torch.tensor([3, 900])
    with torch.inference_mode():
        both = unet(xt, t)
        alone = unet(xt[1:], t[1:])
    assert both.shape == xt.shape
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_every_attention_has_the_heads_of_the_paper():
    with torch.device("meta"):
        unet = DiffusionUNet(image_size=64, base=32, heads=2)
    heads = [module.heads for module in unet.modules() if isinstance(module, Attention)]
    assert heads == [2] * (3 * 2 + 1 + 3 * 3)  # three levels down, the middle, three levels up


def test_fused_attention_equals_the_explicit_one():
    torch.manual_seed(0)
    settings = {"base": 16, "multipliers": [1, 2], "attention_at": [8], "heads": 2}
    unet = DiffusionUNet(image_size=16, **settings).eval()
    xt, t = torch.randn(1, 3, 16, 16), torch.tensor([500])
    with torch.inference_mode():
        fused = unet(xt, t)
        for module in unet.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor())
        torch.testing.assert_close(fused, unet(xt, t), rtol=1e-4, atol=1e-5)


def test_dropout_reaches_every_residual_block():
    with torch.device("meta"):
        unet = DiffusionUNet(image_size=64, base=32, heads=2, dropout=0.3)
    blocks = [m for m in unet.modules() if type(m).__name__ == "ResnetBlock2D"]
    assert {block.dropout.p for block in blocks} == {0.3}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"image_size": 100}, "multipliers"),
        ({"image_size": 100, "multipliers": [1, 2, 2, 2]}, "image_size 100"),
        ({"image_size": 64, "attention_at": [20]}, "attention_at"),
        ({"image_size": 64, "heads": 5}, "heads 5"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, named):
    with pytest.raises(ValueError, match=named):
        DiffusionUNet(**settings)
