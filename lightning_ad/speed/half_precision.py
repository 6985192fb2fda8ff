"""Networks with weights in half precision, for inference under autocast.

Autocast alone converts frozen weights at every call, and between convolutions it goes back to
single precision: on the devices measured it is the slower half of half precision.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class HalfPrecision(nn.Module):
    """A copy of a network that takes inputs of any precision and computes in ``dtype``.

    Args:
        network: a denoiser, an extractor or an autoencoder; it stays as it is.
        dtype: of the copy's weights and outputs.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network: Any = deepcopy(network).to(dtype).eval()
        self.dtype = dtype

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        """Call the network; times and classes, which are integers, are not converted."""
        return self._run(self.network, x, *others)

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) by an autoencoder."""
        return self._run(self.network.encode, image)

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) by an autoencoder."""
        return self._run(self.network.decode, latent)

    def _run(self, function: Any, *inputs: Tensor) -> Any:
        converted = [x.to(self.dtype) if x.is_floating_point() else x for x in inputs]
        with torch.autocast(inputs[0].device.type, enabled=False):
            return function(*converted)
