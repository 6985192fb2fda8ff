"""Class-conditioned latent network of DeCo-Diff (Beizaee et al., CVPR 2025), built on diffusers.

The latent-diffusion U-Net (Rombach et al., arXiv 2112.10752): three levels, each with
self-attention and with cross-attention to one token, the embedding of the image's class.
``diffusers.UNet2DConditionModel`` computes the same function as the authors' network.
"""

import math
from typing import Literal

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from lightning_ad.speed.silu import activate_in_place

SIZES = {"XS": (64, 4), "S": (128, 4), "M": (192, 6), "L": (256, 8), "XL": (320, 12)}
"""Base width and attention heads of the first level, by the paper's name."""


class ContextUNet(nn.Module):
    """U-Net that predicts the direction of deviation d from a latent and its class.

    Args:
        categories: number of classes the model is trained on.
        channels: channels of the latent, the autoencoder's.
        size: the paper's name for the width: XS, S, M, L or XL.
        base: channels of the first level, instead of ``size``'s.
        heads: attention heads of the first level, instead of ``size``'s; the next levels have
            heads of the same width.
        dropout: share of dropped activations in the residual blocks.
        null_class: add one class, of index ``categories``, that stands for "not known".
    """

    def __init__(
        self,
        categories: int,
        channels: int = 4,
        size: Literal["XS", "S", "M", "L", "XL"] = "S",
        base: int | None = None,
        heads: int | None = None,
        dropout: float = 0.4,
        null_class: bool = False,
    ) -> None:
        super().__init__()
        base, heads = base or SIZES[size][0], heads or SIZES[size][1]
        widths = (base, 2 * base, 4 * base)
        self.categories, self.channels, self.null_class = categories, channels, null_class
        self.embedding = nn.Embedding(categories + null_class, 2 * base)
        self.unet = UNet2DConditionModel(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=widths,
            down_block_types=("CrossAttnDownBlock2D",) * 3,
            mid_block_type="UNetMidBlock2DCrossAttn",
            up_block_types=("CrossAttnUpBlock2D",) * 3,
            layers_per_block=2,
            # diffusers reads counts; the paper fixes the width of a head, which XL rounds down
            attention_head_dim=tuple(width // (base // heads) for width in widths),
            cross_attention_dim=2 * base,
            dropout=dropout,
            flip_sin_to_cos=True,
            freq_shift=0,
            norm_eps=1e-5,
            norm_num_groups=math.gcd(32, base),  # 32 in the paper; a small base allows fewer
        )
        activate_in_place(self.unet)
        for block in self._blocks():
            block.attn2.processor = OneTokenAttention()  # type: ignore[assignment]

    @property
    def null_category(self) -> int:
        """Index of the class that stands for "not known"."""
        if not self.null_class:
            raise ValueError("this network has no null class: set null_class to true and train it")
        return self.categories

    def forward(self, zt: Tensor, t: Tensor, category: Tensor) -> Tensor:
        """Predict d (B, C, h, w) from latents z_t (B, C, h, w), timesteps (B,), classes (B,)."""
        context = self.embedding(category)[:, None]
        if torch.is_grad_enabled():
            # Queries and keys have no influence (see OneTokenAttention). Zeros made of them keep
            # every parameter in the graph, as distributed training demands.
            context = context + 0 * sum(parameter.sum() for parameter in self._without_influence())
        return self.unet(zt, t, encoder_hidden_states=context, return_dict=False)[0]

    def _blocks(self) -> list[BasicTransformerBlock]:
        return [m for m in self.unet.modules() if isinstance(m, BasicTransformerBlock)]

    def _without_influence(self) -> list[nn.Parameter]:
        blocks = self._blocks()
        modules = [m for b in blocks for m in (b.norm2, b.attn2.to_q, b.attn2.to_k)]
        return [parameter for module in modules for parameter in module.parameters()]


class OneTokenAttention:
    """Cross-attention to a context of one token, computed as the constant it is.

    The softmax over one key is 1, so every query receives the same projected value.
    """

    def __call__(
        self,
        attention: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Project the context (B, 1, D) and give it to all queries (B, N, C)."""
        value = attention.to_out[1](attention.to_out[0](attention.to_v(encoder_hidden_states)))
        return value.expand(hidden_states.shape)
