"""Upsampling and the convolution behind it as one transposed convolution: same result, less work.

A 3x3 kernel on an image doubled by repetition meets each original pixel several times: nine
products per output pixel where four, with weights added up beforehand, give the same. These
convolutions, at the largest sides, are a quarter of what Stable Diffusion's decoder computes.
"""

import torch
import torch.nn.functional as F
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn


class FoldedUpsample(nn.Module):
    """Doubles a feature map (B, C, h, w) and convolves it, for inference.

    Keeps the convolution it is made of, so that its place in a checkpoint stays the same.
    """

    folded: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("folded", folded_kernel(conv.weight), persistent=False)

    def forward(self, hidden_states: Tensor, output_size: int | None = None) -> Tensor:
        """Feature map (B, C', 2 h, 2 w), which is the only ``output_size`` there is."""
        return F.conv_transpose2d(hidden_states, self.folded, self.conv.bias, 2, 1)


@torch.no_grad()
def folded_kernel(weight: Tensor) -> Tensor:
    """Kernel (C, C', 4, 4) of the transposed convolution for a kernel (C', C, 3, 3)."""
    once = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    rows = once[..., 1:, :] + once[..., :-1, :]
    kernel = rows[..., 1:] + rows[..., :-1]
    return kernel.contiguous(memory_format=torch.channels_last)


def fold_upsampling(network: nn.Module) -> None:
    """Fold each upsampling of a diffusers network; again, if its weights have changed since."""
    for parent in list(network.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, FoldedUpsample):
                part.folded = folded_kernel(part.conv.weight)
            elif isinstance(part, Upsample2D) and _foldable(part):
                setattr(parent, name, FoldedUpsample(part.conv))  # type: ignore[arg-type]


def _foldable(part: Upsample2D) -> bool:
    conv = part.conv
    return (
        isinstance(conv, nn.Conv2d)
        and part.interpolate
        and part.norm is None
        and (conv.kernel_size, conv.padding, conv.stride) == ((3, 3), (1, 1), (1, 1))
    )
