"""Denoiser ε_θ(x_t, t) of the pixel methods and of D3AD, built on diffusers.

The U-Net of Dhariwal and Nichol (arXiv 2105.05233) in the settings of DDAD (Mousakhan et al.,
arXiv 2305.15956) and D3AD (Tebbe and Tayyub, CVPR-W 2024): residual down- and upsampling, and
attention at chosen resolutions with a fixed number of heads. ``diffusers.UNet2DModel`` computes
the same function as the authors' networks, so their checkpoints can be imported.
"""

import math
from collections.abc import Sequence

from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor, nn

from data_modules.reading.geometry import Size, height_and_width, plain, written
from lightning_ad.speed.silu import activate_in_place

PAPER_MULTIPLIERS = {
    256: (1, 1, 2, 2, 4, 4),  # DDAD
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 4, 4),  # D3AD, latents of 256-pixel images
}
"""Width of each level over the base width, by the side of what is denoised."""


class DiffusionUNet(nn.Module):
    """U-Net that predicts the noise ε in an image or latent.

    Args:
        image_size: side of a square input, or height and width, in pixels; a latent denoiser's is
            the latent's.
        base: channels of the first level. DDAD 64, DDAD-S 32, D3AD 192.
        multipliers: channels of each level over ``base``; the papers' table where None.
        attention_at: shorter sides of the feature maps that get self-attention.
        heads: attention heads at every level. DDAD 4, DDAD-S 2, D3AD 8.
        dropout: share of dropped activations in the residual blocks. DDAD-S 0.3.
        channels: channels of the input: 3 for images, the autoencoder's for latents.
        blocks_per_level: residual blocks on the way down (one more on the way up).

    Attributes:
        factor: by which the deepest level is smaller than the input, whose sides are multiples.

    Raises:
        ValueError: if the settings do not fit each other; the message names the setting.
    """

    def __init__(
        self,
        image_size: Size,
        base: int = 64,
        multipliers: Sequence[int] | None = None,
        attention_at: Sequence[int] = (32, 16, 8),
        heads: int = 4,
        dropout: float = 0.0,
        channels: int = 3,
        blocks_per_level: int = 2,
    ) -> None:
        super().__init__()
        image_size = plain(image_size)
        shorter = min(height_and_width(image_size))
        widths = [base * multiplier for multiplier in multipliers or _paper_multipliers(shorter)]
        self.factor = 2 ** (len(widths) - 1)
        _require_halved(image_size, len(widths), self.factor)
        sides = [shorter >> level for level in range(len(widths))]
        attends = _attends(sides, attention_at)
        _check_heads(heads, widths, attends)
        self.image_size, self.channels = image_size, channels
        down = ["AttnDownBlock2D" if attend else "ResnetDownsampleBlock2D" for attend in attends]
        up = ["AttnUpBlock2D" if attend else "ResnetUpsampleBlock2D" for attend in attends]
        self.unet = UNet2DModel(
            sample_size=image_size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(widths),
            down_block_types=tuple(down),
            up_block_types=tuple(reversed(up)),
            downsample_type="resnet",
            upsample_type="resnet",
            layers_per_block=blocks_per_level,
            dropout=dropout,
            flip_sin_to_cos=False,
            freq_shift=0,
            norm_eps=1e-5,
            norm_num_groups=math.gcd(32, base),  # 32 in the papers; a small base allows fewer
        )
        activate_in_place(self.unet)
        for module in self.unet.modules():
            if isinstance(module, Attention):
                module.heads = heads  # diffusers fixes the width of a head instead
                module.scale = (module.inner_dim / heads) ** -0.5

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """Predict ε (B, C, H, W) from the noised input (B, C, H, W) at timesteps (B,)."""
        return self.unet(xt, t, return_dict=False)[0]


def _paper_multipliers(image_size: int) -> tuple[int, ...]:
    if image_size not in PAPER_MULTIPLIERS:
        raise ValueError(
            f"multipliers: the papers give none for image_size {image_size} (only for"
            f" {sorted(PAPER_MULTIPLIERS)}); set multipliers, one per level, say [1, 2, 3, 4]"
        )
    return PAPER_MULTIPLIERS[image_size]


def _require_halved(image_size: Size, levels: int, factor: int) -> None:
    if any(side % factor for side in height_and_width(image_size)):
        raise ValueError(
            f"image_size {written(image_size)} cannot be halved {levels - 1} times: with {levels}"
            f" multipliers it must be divisible by {factor}"
        )


def _attends(sides: list[int], attention_at: Sequence[int]) -> list[bool]:
    """Whether each level has attention; an ``attention_at`` that meets no level is a mistake."""
    if attention_at and not set(attention_at) & set(sides):
        raise ValueError(
            f"attention_at {list(attention_at)} names no level: the feature maps have sides"
            f" {sides}; use [] for none but the middle block's"
        )
    return [side in attention_at for side in sides]


def _check_heads(heads: int, widths: list[int], attends: list[bool]) -> None:
    attended = [width for width, attend in zip(widths, attends, strict=True) if attend]
    for width in {*attended, widths[-1]}:  # the middle block always attends
        if width % heads:
            raise ValueError(f"heads {heads} does not divide the width {width} of a level")
