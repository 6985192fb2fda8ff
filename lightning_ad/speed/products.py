"""Products of float32 matrices on a CPU, as oneDNN computes them.

PyTorch leaves such products to MKL, which uses half the width of an AMD processor. Convolutions go
to oneDNN, which uses all of it, and a 1x1 convolution is the same product.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGES = 16
"""As which rows are given to a convolution: of fewer, and on one thread, MKL would get them too."""


def affine(points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Points (..., K) times weight (M, K) transposed, plus bias (M,): (..., M)."""
    if not _for_onednn(points):
        return F.linear(points, weight, bias)
    rows = points.reshape(-1, points.shape[-1])
    over = -len(rows) % IMAGES
    filled = F.pad(rows, (0, 0, 0, over)) if over else rows
    images = filled.view(IMAGES, 1, -1, rows.shape[1]).permute(0, 3, 1, 2)
    found = F.conv2d(images, weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    return found.reshape(-1, len(weight))[: len(rows)].view(*points.shape[:-1], -1)


def _for_onednn(points: Tensor) -> bool:
    """Whether oneDNN would compute this in float32, and nobody wants to follow how."""
    return (
        points.device.type == "cpu"
        and points.dtype == torch.float32
        and points.numel() > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
    )


class Linear(nn.Linear):
    """A linear layer that computes by `affine` where no gradient is needed."""

    def forward(self, input: Tensor) -> Tensor:
        """Outputs (..., M) for inputs (..., K)."""
        return affine(input, self.weight, self.bias)
