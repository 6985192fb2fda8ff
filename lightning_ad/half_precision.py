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
        """Call the network; only the first input is converted, times and classes are integers."""
        return self._run(self.network, x, *others)

    def encode(self, image: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) by an autoencoder."""
        return self._run(self.network.encode, image)

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents (B, C, h, w) by an autoencoder."""
        return self._run(self.network.decode, latent)

    def _run(self, function: Any, x: Tensor, *others: Tensor) -> Any:
        with torch.autocast(x.device.type, enabled=False):
            return function(x.to(self.dtype), *others)
