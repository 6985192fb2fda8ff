"""The denoiser of feature diffusion: one small network for each patch, told where the patch is.

There is no mixing between places: convolutions and attention over patches were slower to learn and
localised worse. What a place knows is an embedding of its own.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_modules.reading.geometry import Size, height_and_width, plain
from lightning_ad.speed.products import Linear

FREQUENCIES = 32
CONDITION = 128
"""Width of what tells the noise level."""


class PatchDenoiser(nn.Module):
    """F(y, sigma, place, category) for patches of K components.

    Args:
        image_size: side of square images, or their height and width, in pixels.
        components: K, as many as the detector's.
        width: W of the hidden layers.
        blocks: residual blocks.
        stride: pixels per patch; 8 for features whose first layer is 2.
        categories: number of categories that one model learns.
    """

    def __init__(
        self,
        image_size: Size = 256,
        components: int = 256,
        width: int = 384,
        blocks: int = 2,
        stride: int = 8,
        categories: int = 1,
    ) -> None:
        super().__init__()
        self.components, self.categories = components, categories
        rows, columns = (-(-side // stride) for side in height_and_width(image_size))
        self.grid = plain((rows, columns))
        self.enter = Linear(components, width)
        self.place = nn.Embedding(rows * columns, width)
        self.category = nn.Embedding(categories, width)
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES, CONDITION), nn.SiLU())
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        last = Linear(width, components)
        self.leave = nn.Sequential(nn.LayerNorm(width), last)
        for layer in (self.place, self.category):
            nn.init.zeros_(layer.weight)
        _zero(last)
        frequencies = torch.logspace(math.log10(0.25), math.log10(16), FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, y: Tensor, sigma: Tensor, place: Tensor, category: Tensor) -> Tensor:
        """Output (B, N, K) for patches (B, N, K) of unit variance.

        ``sigma`` (B, 1, 1) is each image's noise level, ``place`` (B, N) or (N,) numbers the
        patches' places row by row, ``category`` is (B,).
        """
        phase = sigma.log() * self.frequencies
        level = self.level(torch.cat([phase.sin(), phase.cos()], -1))
        h = self.enter(y) + self.place(place) + self.category(category)[:, None]
        for block in self.blocks:
            h = block(h, level)
        return self.leave(h)


class _Block(nn.Module):
    """h + (1 + g) MLP(norm(h) (1 + b) + a) with a, b and g from the noise level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen, self.narrow = Linear(width, 2 * width), Linear(2 * width, width)
        self.condition = nn.Linear(CONDITION, 3 * width)
        with torch.no_grad():  # two blocks then add half of the variance that enters
            self.narrow.weight *= 0.5 / math.sqrt(2)
        nn.init.zeros_(self.narrow.bias)
        _zero(self.condition)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        a, b, g = self.condition(level).chunk(3, -1)
        inner = torch.addcmul(a, self.norm(h), 1 + b)
        return torch.addcmul(h, 1 + g, self.narrow(F.gelu(self.widen(inner))))


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
