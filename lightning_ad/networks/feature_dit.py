"""A diffusion transformer on feature maps, every cell a token.

Peebles, Xie, "Scalable Diffusion Models with Transformers", ICCV 2023 (DiT, adaLN-Zero), without
classes, on patches of one cell, as InvAD (arXiv 2504.05662) uses it. Parts are named as in DiT's
code, so that weights trained with it load.
"""

import math
from functools import partial
from typing import Any

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn

FREQUENCIES = 128
"""Frequencies that a time is expanded in, a sine and a cosine of each."""


class FeatureDiT(nn.Module):
    """Noise eps(xt, t) in feature maps xt (B, C, side, side) at times t (B,).

    Args:
        channels: C.
        side: height and width of the maps, in cells.
        width: of the tokens, a multiple of ``heads`` and of 4.
        depth: number of blocks.
        heads: of each attention.
    """

    def __init__(
        self,
        channels: int = 272,
        side: int = 16,
        width: int = 2048,
        depth: int = 16,
        heads: int = 16,
    ) -> None:
        super().__init__()
        if width % heads or width % 4:
            raise ValueError(f"width {width} must be a multiple of heads ({heads}) and of 4")
        self.channels, self.side = channels, side
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, 1)})
        self.t_embedder = nn.ModuleDict({"mlp": _time_mlp(width)})
        self.register_buffer("pos_embed", _positions(side, width)[None])
        self.pos_embed: Tensor
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.final_layer = _Final(width, channels)

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Predict the noise."""
        tokens = self.x_embedder["proj"](xt).flatten(2).transpose(1, 2) + self.pos_embed
        time = self.t_embedder["mlp"](_waves(t).to(tokens.dtype))
        for block in self.blocks:
            tokens = block(tokens, time)
        return self.final_layer(tokens, time).transpose(1, 2).unflatten(2, xt.shape[-2:])


class _Block(nn.Module):
    """Attention and a perceptron, each shifted, scaled and gated by the time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attn = Attention(width, num_heads=heads, qkv_bias=True)
        gelu: Any = partial(nn.GELU, approximate="tanh")
        self.mlp = Mlp(width, 4 * width, act_layer=gelu)
        self.adaLN_modulation = _modulation(width, 6)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        a, b, c, d, e, f = self.adaLN_modulation(time).unsqueeze(1).chunk(6, dim=-1)
        x = x + c * self.attn(_modulate(self.norm1(x), a, b))
        return x + f * self.mlp(_modulate(self.norm2(x), d, e))


class _Final(nn.Module):
    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm_final = _norm(width)
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = _modulation(width, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(_modulate(self.norm_final(x), shift, scale))


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulation(width: int, parts: int) -> nn.Sequential:
    """Starts at zero, so that a block starts as the identity."""
    linear = nn.Linear(width, parts * width)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


def _time_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))


def _waves(t: Tensor) -> Tensor:
    """Cosines and sines (B, 256) of times (B,) at frequencies from 1 to 1 / 10,000."""
    steps = torch.arange(FREQUENCIES, device=t.device) / FREQUENCIES
    angles = t[:, None].float() * torch.exp(-math.log(10_000) * steps)
    return torch.cat([angles.cos(), angles.sin()], 1)


def _positions(side: int, width: int) -> Tensor:
    """Sines and cosines (side^2, width) of each token's column, then of its row."""
    frequencies = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    column = waves[None].expand(side, -1, -1)
    row = waves[:, None].expand(-1, side, -1)
    return torch.cat([column, row], -1).flatten(0, 1).float()
