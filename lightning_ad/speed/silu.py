"""SiLU in place, a fifth of a denoiser's time on a CPU: it saves a feature map's way to memory."""

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class InPlaceSiLU(nn.Module):
    """SiLU that overwrites feature maps, where no gradient needs them.

    For activations behind a normalization, whose output nobody else reads; embeddings (B, D), which
    several blocks share, are left as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Activate feature maps (B, C, H, W) or embeddings (B, D)."""
        return F.silu(x, inplace=x.ndim == 4 and not torch.is_grad_enabled())


def activate_in_place(network: nn.Module) -> None:
    """Let the SiLUs of a diffusers network, all of them behind normalizations, work in place."""
    for module in network.modules():
        if isinstance(module, ResnetBlock2D) and isinstance(module.nonlinearity, nn.SiLU):
            module.nonlinearity = InPlaceSiLU()  # type: ignore[assignment]
        if isinstance(getattr(module, "conv_act", None), nn.SiLU):
            module.conv_act = InPlaceSiLU()
