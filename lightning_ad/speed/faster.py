"""The one way to a fast copy of a network."""

import torch
from torch import nn

from lightning_ad.speed.half_precision import HalfPrecision


def faster(network: nn.Module, dtype: torch.dtype, pairs: bool | None = None) -> HalfPrecision:
    """A copy of a network that computes in half precision, for inference; it follows no training.

    Args:
        network: a denoiser, an extractor or an autoencoder; it stays as it is.
        dtype: float16 or bfloat16.
        pairs: None for most. True or False for a method that compares what hardly differs: only
            products are in half precision then. True if an autoencoder's ``decode`` is always given
            a pair: a batch of B latents, and B others that hardly differ from them.
    """
    if pairs is None:
        return HalfPrecision(network, dtype)
    from lightning_ad.speed.half_products import HalfProducts  # diffusers, which few networks need

    return HalfProducts(network, dtype, pairs)
