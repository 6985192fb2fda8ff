"""Residual blocks of an autoencoder that multiply in half precision, a few rows at a time.

Between convolutions a block normalizes, activates and rounds. In float32 and one operation after
the other, that takes a good part of the time which half precision saves: on a CPU, feature maps of
a hundred megabytes go to memory and back at each. Rows that stay in the cache go once.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lightning_ad.networks.silu import InPlaceSiLU

ROWS = 1 << 17
"""Numbers of one image that are worked on at once on a CPU: half a megabyte in float32."""

Read = Callable[[slice], Tensor]
"""Gives rows (B, C, r, W) of a feature map in float32."""


class HalfResidual(nn.Module):
    """A diffusers block without time embedding whose layers already multiply in half precision.

    Writes into its input, which in an autoencoder nothing else reads.

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
        inner = self.conv1.layer(self._operand(lambda rows: x[:, :, rows], x, self.norm1))
        outer = self.conv2.layer(
            self._operand(lambda rows: self.conv1.completed(inner[:, :, rows]), inner, self.norm2)
        )
        output = x if self.conv_shortcut is None else self.conv_shortcut(x)
        for rows in _rows_of(output):
            output[:, :, rows] += self.conv2.completed(outer[:, :, rows])
        return output

    def _operand(self, read: Read, like: Tensor, norm: nn.GroupNorm) -> Tensor:
        """A feature map, shaped ``like``, normalized, activated and rounded for a convolution."""
        scale, shift = _affine(read, like, norm)
        operand = torch.empty_like(like, dtype=self.conv1.dtype)
        for rows in _rows_of(like):
            y = F.silu(torch.addcmul(shift, read(rows), scale), inplace=True)
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


def _rows_of(x: Tensor) -> list[slice]:
    """Slices of x (B, C, H, W) by rows; they don't depend on B, as sums over them shall not.

    On a GPU, whose kernels would be too short, all rows at once.
    """
    height, width = x.shape[2:]
    rows = max(1, ROWS // (x.shape[1] * width)) if x.device.type == "cpu" else height
    return [slice(top, top + rows) for top in range(0, height, rows)]


def _affine(read: Read, like: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift (B, C, 1, 1) that are the group normalization of a feature map."""
    batch, channels, height, width = like.shape
    # Products with ones are the fastest sums over pixels that lie between channels.
    total = torch.zeros(batch, 1, channels, device=like.device)
    squares = torch.zeros_like(total)
    for rows in _rows_of(like):
        pixels = read(rows).permute(0, 2, 3, 1).reshape(batch, -1, channels)
        ones = pixels.new_ones(batch, 1, pixels.shape[1])
        total += ones @ pixels
        squares += ones @ pixels.square()
    grouped = torch.stack([total, squares]).view(2, batch, norm.num_groups, -1)
    mean, square = grouped.mean(3, keepdim=True) / (height * width)
    deviation = ((square - mean.square()).clamp(min=0) + norm.eps).sqrt()
    weight, bias = (p.view(1, norm.num_groups, -1) for p in (norm.weight, norm.bias))
    scale = weight / deviation
    shift = bias - mean * scale
    return scale.view(batch, channels, 1, 1), shift.view(batch, channels, 1, 1)
