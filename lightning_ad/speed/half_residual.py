"""Residual blocks of an autoencoder that multiply in half precision, a few rows at a time.

Between convolutions a block normalizes, activates and rounds. In float32 and one operation after
the other, that takes a good part of the time which half precision saves: on a CPU, feature maps of
a hundred megabytes go to memory and back at each. Rows that stay in the cache go once.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lightning_ad.speed.silu import InPlaceSiLU

ROWS = 1 << 17
"""Numbers of one image that are worked on at once on a CPU: half a megabyte in float32."""


class HalfResidual(nn.Module):
    """A diffusers block without time embedding whose layers already multiply in half precision.

    Args:
        block: its convolutions are `HalfLayer`s.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.conv_shortcut = block.conv_shortcut

    def forward(self, x: Tensor, temb: None = None) -> Tensor:
        """The block's output (B, C', H, W), float32, of float32 x (B, C, H, W)."""
        y = self.conv1.multiply(self._operand(x, self.norm1))
        y = self.conv2.multiply(self._operand(y, self.norm2))
        y += x if self.conv_shortcut is None else self.conv_shortcut(x)
        return y

    def _operand(self, x: Tensor, norm: nn.GroupNorm) -> Tensor:
        """What `HalfLayer.multiply` takes for x (B, C, H, W) normalized and activated."""
        scale, shift = normalization(x, norm)
        operand = torch.empty_like(x, dtype=self.conv1.dtype)
        for rows, y in _by_rows(x):
            F.silu(torch.addcmul(shift, x[:, :, rows], scale, out=y), inplace=True)
            if self.conv1.paired:
                a, b = y.chunk(2)
                a -= b
            operand[:, :, rows] = y
        return operand


def use_half_residuals(network: nn.Module) -> None:
    """Put a `HalfResidual` in place of each block of a network that one can stand for."""
    for parent in list(network.modules()):
        for name, block in list(parent.named_children()):
            if isinstance(block, ResnetBlock2D) and _is_plain(block):
                setattr(parent, name, HalfResidual(block))


def _is_plain(block: ResnetBlock2D) -> bool:
    return (
        block.time_emb_proj is None
        and block.upsample is None
        and block.downsample is None
        and block.output_scale_factor == 1
        and isinstance(block.nonlinearity, nn.SiLU | InPlaceSiLU)
    )


def normalization(x: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift (B, C, 1, 1) that are the group normalization of x (B, C, H, W), float32."""
    moments = (torch.stack(values) for values in zip(*map(_moments, x), strict=True))
    mean, variance = (value.view(len(x), norm.num_groups, -1) for value in moments)
    center = mean.mean(2, keepdim=True)
    spread = (variance + (mean - center).square()).mean(2, keepdim=True)
    weight, bias = (p.view(1, norm.num_groups, -1) for p in (norm.weight, norm.bias))
    scale = weight / (spread + norm.eps).sqrt()
    shift = bias - center * scale
    return scale.view(*x.shape[:2], 1, 1), shift.view(*x.shape[:2], 1, 1)


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of each channel of a feature map (C, H, W)."""
    if image.device.type == "cpu":  # many times as fast where pixels lie between channels
        return torch.batch_norm_update_stats(image[None], None, None, 0.0)
    variance, mean = torch.var_mean(image, (1, 2), correction=0)
    return mean, variance


def _by_rows(x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of x (B, C, H, W) by rows, each with memory for them that stays in the cache.

    On a GPU, whose kernels would be too short, all rows at once.
    """
    if x.device.type != "cpu":
        yield slice(None), torch.empty_like(x)
        return
    batch, channels, height, width = x.shape
    count = max(1, ROWS // (channels * width))
    # Images lie within rows, so that a core has the same rows of all images in every operation:
    # what one core wrote, another is slow to read.
    memory = x.new_empty(count, batch, width, channels).permute(1, 3, 0, 2)
    for top in range(0, height, count):
        rows = slice(top, min(top + count, height))
        yield rows, memory[:, :, : rows.stop - top]
