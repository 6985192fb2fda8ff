"""Networks that multiply in half precision and compute all else in single precision.

Convolutions, linear layers and attention are nearly all of a network's arithmetic and bear rounding
best. For methods that compare what hardly differs: a little slower than `HalfPrecision`, but
several times as close to float32.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lightning_ad.speed.folding import FoldedUpsample
from lightning_ad.speed.half_precision import HalfPrecision
from lightning_ad.speed.half_residual import use_half_residuals


class HalfProducts(HalfPrecision):
    """A copy of a network that multiplies in ``dtype`` and computes all else in float32.

    What runs through between products stays in float32, and so do the convolutions at the ends,
    which take the input in and put the output together.

    Args:
        network: a denoiser, or an autoencoder with parts named ``encoder`` and ``decoder``; it
            stays as it is.
        dtype: of the products. Inputs and outputs are float32.
        pairs: whether what is decoded are pairs, see `faster`: rounding is then small beside the
            difference of a pair.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype, pairs: bool = False) -> None:
        super().__init__(network, torch.float32)
        parts = {name: part for name, part in self.network.named_modules() if _last(name) in PARTS}
        for name, part in (parts or {"": self.network}).items():
            if _last(name) != "encoder" or _is_large(part):
                _multiply_in(part, dtype, pairs and _last(name) == "decoder")
        use_half_residuals(self.network)


class HalfLayer(nn.Module):
    """A convolution or linear layer that multiplies in ``dtype``, between float32 tensors.

    Args:
        layer: becomes a part of this one.
        dtype: of the products.
        paired: whether a batch is a pair: B inputs, and B others that hardly differ from them.
            Being linear, the layer is then given the differences and the others, so that rounding
            is small beside a difference and not only beside what differs.
        multiplied_on: whether attention multiplies the output by others', which is then done in
            ``dtype`` too. For a pair it is not: attention is not linear in it.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear | FoldedUpsample,
        dtype: torch.dtype,
        paired: bool = False,
        multiplied_on: bool = False,
    ) -> None:
        super().__init__()
        holder = layer.conv if isinstance(layer, FoldedUpsample) else layer
        bias, holder.bias = holder.bias, None
        shape = (-1,) if isinstance(layer, nn.Linear) else (-1, 1, 1)
        self.bias = None if bias is None else nn.Parameter(bias.view(shape), requires_grad=False)
        self.layer, self.dtype = layer.to(dtype), dtype
        self.paired, self.multiplied_on = paired, multiplied_on

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """The layer's output, float32 or ready for attention, of x."""
        if self.paired:
            a, b = x.chunk(2)
            x = torch.cat([(a - b).to(self.dtype), b.to(self.dtype)])
        return self.multiply(x.to(self.dtype), *others)

    def multiply(self, operand: Tensor, *others: Any) -> Tensor:
        """`forward` of an input in ``dtype``, of a pair in differences."""
        y = self.layer(operand, *others)
        if self.paired or not self.multiplied_on:
            y = y.to(torch.float32, copy=True)
        a, b = y.chunk(2) if self.paired else (None, y)
        if self.bias is not None:
            b += self.bias
        if a is not None:
            a += b
        return y


PARTS = ("encoder", "decoder")
"""Parts of an autoencoder, which have ends of their own."""


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _is_large(encoder: nn.Module) -> bool:
    """Whether an encoder is worth rounding for: to a denoiser, rounding looks like a deviation."""
    return any(isinstance(module, ResnetBlock2D) for module in encoder.modules())


def _multiply_in(part: nn.Module, dtype: torch.dtype, paired: bool) -> None:
    """Let all layers multiply in half precision but the first and the last convolution."""
    convolutions = [module for module in part.modules() if isinstance(module, nn.Conv2d)]
    ends = {*convolutions[:1], *convolutions[-1:]}
    for parent in list(part.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(parent, FoldedUpsample) or layer in ends:
                continue
            if isinstance(layer, (nn.Conv2d, nn.Linear, FoldedUpsample)):
                attends = isinstance(parent, Attention) and name in ("to_q", "to_k", "to_v")
                setattr(parent, name, HalfLayer(layer, dtype, paired, multiplied_on=attends))
