"""Folded upsampling computes what it replaces, from the same checkpoint."""

import torch
from diffusers import AutoencoderKL
from diffusers.models.upsampling import Upsample2D

from lightning_ad.speed.folding import FoldedUpsample, fold_upsampling


def tiny_decoder(seed):
    torch.manual_seed(seed)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(4, 8, 8),
        norm_num_groups=2,
    ).eval()


@torch.no_grad()
def test_folded_network_computes_the_same_from_the_same_weights():
    network, z = tiny_decoder(0), torch.randn(2, 4, 5, 6)
    expected, keys = network.decode(z).sample, set(network.state_dict())
    fold_upsampling(network)
    folded = [part for part in network.modules() if isinstance(part, FoldedUpsample)]
    assert len(folded) == 2
    assert not any(isinstance(part, Upsample2D) for part in network.modules())
    torch.testing.assert_close(network.decode(z).sample, expected, rtol=1e-4, atol=1e-5)
    assert set(network.state_dict()) == keys


@torch.no_grad()
def test_folding_again_follows_other_weights():
    network, other, z = tiny_decoder(0), tiny_decoder(1), torch.randn(1, 4, 4, 4)
    fold_upsampling(network)
    network.load_state_dict(other.state_dict())
    fold_upsampling(network)
    expected = other.decode(z).sample
    torch.testing.assert_close(network.decode(z).sample, expected, rtol=1e-4, atol=1e-5)
