"""Networks with weights in half precision, for inference under autocast.

Autocast alone converts frozen weights at every call, and between convolutions it goes back to
single precision: on the devices measured it is the slower half of half precision.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from lightning_ad.speed.folding import FoldedUpsample
from lightning_ad.speed.half_residual import use_half_residuals


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

    def decode_pair(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents a and b (B, C, h, w) by an autoencoder, as one batch."""
        return self._run(self.network.decode_pair, a, b)

    def _run(self, function: Any, *inputs: Tensor) -> Any:
        converted = [x.to(self.dtype) if x.is_floating_point() else x for x in inputs]
        with torch.autocast(inputs[0].device.type, enabled=False):
            return function(*converted)


class HalfProducts(HalfPrecision):
    """A copy of a network that multiplies in ``dtype`` and computes all else in float32.

    Convolutions, linear layers and attention are nearly all of a network's arithmetic and bear
    rounding best. What runs through between them stays in float32, and so do the convolutions at
    the ends, which take the input in and put the output together. For methods that compare what
    hardly differs: a little slower than `HalfPrecision`, but several times as close to float32.

    Args:
        network: a denoiser, or an autoencoder with parts named ``encoder`` and ``decoder``, of
            which a ``light`` one encodes in float32; it stays as it is.
        dtype: of the products. Inputs and outputs are float32.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__(network, torch.float32)
        for part in _parts(self.network):
            _multiply_in(part, dtype)
        use_half_residuals(self.network)

    def decode_pair(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents a and b (B, C, h, w) so that rounding is small beside their difference."""
        with self._paired():
            return super().decode_pair(a, b)

    @contextmanager
    def _paired(self) -> Iterator[None]:
        layers = [module for module in self.modules() if isinstance(module, HalfLayer)]
        for layer in layers:
            layer.paired = True
        try:
            yield
        finally:
            for layer in layers:
                layer.paired = False


class HalfLayer(nn.Module):
    """A convolution or linear layer that multiplies in ``dtype``, between float32 tensors.

    Args:
        layer: becomes a part of this one.
        dtype: of the products.
        multiplied_on: whether attention multiplies the output by others', which is then done in
            ``dtype`` too. For a pair it is not: attention is not linear in it.

    Attributes:
        paired: whether a batch is a pair: B inputs, and B others that hardly differ from them.
            Being linear, the layer is then given the differences and the others, so that rounding
            is small beside a difference and not only beside what differs.
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear | FoldedUpsample,
        dtype: torch.dtype,
        multiplied_on: bool = False,
    ) -> None:
        super().__init__()
        holder = layer.conv if isinstance(layer, FoldedUpsample) else layer
        bias, holder.bias = holder.bias, None
        shape = (-1,) if isinstance(layer, nn.Linear) else (-1, 1, 1)
        self.bias = None if bias is None else nn.Parameter(bias.view(shape), requires_grad=False)
        self.layer, self.dtype, self.multiplied_on = layer.to(dtype), dtype, multiplied_on
        self.paired = False

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


def _parts(network: nn.Module) -> list[nn.Module]:
    """The whole network, or an autoencoder's encoder and decoder, which have ends of their own.

    Not a light encoder: what it rounds looks to a denoiser like a deviation from normality.
    """
    halved = ["decoder"] if getattr(network, "light", False) else ["encoder", "decoder"]
    named = [
        module for name, module in network.named_modules() if name.rpartition(".")[2] in halved
    ]
    return named or [network]


def _multiply_in(part: nn.Module, dtype: torch.dtype) -> None:
    """Let all layers multiply in half precision but the first and the last convolution."""
    convolutions = [module for module in part.modules() if isinstance(module, nn.Conv2d)]
    ends = {*convolutions[:1], *convolutions[-1:]}
    for parent in list(part.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(parent, FoldedUpsample) or layer in ends:
                continue
            if isinstance(layer, (nn.Conv2d, nn.Linear, FoldedUpsample)):
                attends = isinstance(parent, Attention) and name in ("to_q", "to_k", "to_v")
                setattr(parent, name, HalfLayer(layer, dtype, multiplied_on=attends))
