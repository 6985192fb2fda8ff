"""DeCo-Diff's masked forward process, its reversal and its maps: deviations as noise.

Only some patches of a latent are noised, with Gaussian noise and with patches of other normal
latents; the network learns the direction that leads back and, for what was left alone, that there
is nothing to correct. Names follow the paper: ``z`` clean latent, ``zt`` noised, ``d`` direction of
deviation, ``mask`` 1 where z is kept. Source: Beizaee et al., CVPR 2025, arXiv 2503.19357.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ad.maths import maps
from lightning_ad.maths.diffusion import Denoise, add_noise, alpha_bar_at

PATCH_SIDES = {1: 0.30, 2: 0.25, 4: 0.20, 8: 0.15, 16: 0.10}
"""Side of a patch in latent pixels, and how often it is drawn (published code)."""


def draw_patch_side(height: int, width: int) -> int:
    """Draw the side of a batch's patches among those that tile a latent of this size."""
    fitting = {
        side: chance
        for side, chance in PATCH_SIDES.items()
        if side == 1 or (side < min(height, width) and height % side == width % side == 0)
    }
    # On the CPU, where reading the number back does not wait for the device.
    drawn = torch.multinomial(torch.tensor(list(fitting.values())), 1)
    return list(fitting)[int(drawn)]


def patch_mask(share: Tensor, height: int, width: int, side: int) -> Tensor:
    """Mask (B, 1, height, width) that is true on a random ``share`` (B,) of each image's patches.

    The number of patches is the share rounded, so that it varies no more than it has to.
    """
    rows, columns = height // side, width // side
    cells = rows * columns
    rank = torch.rand(len(share), cells, device=share.device).argsort(1).argsort(1)
    chosen = rank < (share[:, None] * cells).round()
    grid = chosen.view(-1, 1, rows, columns)
    return grid.repeat_interleave(side, 2).repeat_interleave(side, 3)


def shuffle_patches(z: Tensor, side: int) -> Tensor:
    """Permute the patches of latents (B, C, h, w) across images and places."""
    batch, channels, height, width = z.shape
    grid = (batch, channels, height // side, side, width // side, side)
    patches = z.reshape(grid).permute(0, 2, 4, 1, 3, 5)
    flat = patches.flatten(0, 2)
    shuffled = flat[torch.randperm(len(flat), device=z.device)]
    return shuffled.view(patches.shape).permute(0, 3, 1, 4, 2, 5).reshape(z.shape)


def mixed_noise(z: Tensor, side: int, max_share: float) -> Tensor:
    """Gaussian noise like z (B, C, h, w), with up to ``max_share`` of patches from the batch."""
    share = max_share * torch.rand(len(z), device=z.device)
    foreign = patch_mask(share, z.shape[2], z.shape[3], side)
    return torch.where(foreign, shuffle_patches(z, side), torch.randn_like(z))


def deviate(
    z: Tensor, noise: Tensor, mask: Tensor, alpha_bar: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """Latents zt (B, C, h, w) that deviate outside the mask at times t (B,), and direction d.

    ``d = (1 - m)(n - c_t z)`` with ``c_t = (1 - sqrt(ab)) / sqrt(1 - ab)``, so that
    ``zt - sqrt(1 - ab) d`` is z again.
    """
    ab = alpha_bar_at(alpha_bar, t, z)
    shrinkage = ((1 - ab.sqrt()) / (1 - ab).sqrt()).to(z.dtype)
    kept = mask.to(z.dtype)
    zt = kept * z + (1 - kept) * add_noise(z, noise, alpha_bar, t)
    return zt, (1 - kept) * (noise - shrinkage * z)


def correct_deviation(
    predict: Denoise, z: Tensor, timesteps: Sequence[int], alpha_bar: Tensor
) -> Tensor:
    """Walk a latent z (B, C, h, w) down ``timesteps``, taking away the deviation found at each.

    The walk starts at the latent itself, without noise. A step to t' leaves as much of the
    deviation as t' stands for, ``z_t' = z0 + sqrt(1 - ab') d``; the last one leaves none.
    """
    remaining = torch.cat([(1 - alpha_bar).sqrt(), alpha_bar.new_zeros(1)]).to(z.dtype)
    for t, t_next in pairwise([*timesteps, -1]):
        d = predict(z, torch.full((z.shape[0],), t, device=z.device)).to(z.dtype)
        z = z - (remaining[t] - remaining[t_next]) * d
    return z


def pixel_deviation(a: Tensor, b: Tensor) -> Tensor:
    """Largest |a - b| of the channels of images (B, 3, H, W) in (B, 1, H, W), 0 to 1, smoothed."""
    distance = (a.float() - b.float()).abs().amax(1, keepdim=True)
    return _smooth(distance.clamp(max=0.4) * 2.5, sigma=3)


def latent_deviation(a: Tensor, b: Tensor, factor: int) -> Tensor:
    """Mean |a - b| of latents (B, C, h, w), 0 to 1, smoothed, in (B, 1, factor h, factor w)."""
    smooth = _smooth(maps.pixel_distance(a, b).clamp(max=0.2) * 5, sigma=1)
    padded = F.pad(smooth, (1, 1, 1, 1), mode="reflect")  # published: the border is mirrored
    large = F.interpolate(padded, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[..., factor:-factor, factor:-factor]


def _smooth(map: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (B, 1, H, W) with the border pixel repeated in its mirror image."""
    reach = round(4 * sigma)
    rows, columns = (_mirrored(size, reach, map.device) for size in map.shape[-2:])
    padded = map[..., rows[:, None], columns]
    return maps.gaussian_blur(padded, sigma)[..., reach:-reach, reach:-reach]


def _mirrored(size: int, reach: int, device: torch.device) -> Tensor:
    """Positions that extend 0 ... size - 1 by ``reach`` on both sides as in ... 1 0 0 1 ..."""
    positions = torch.arange(-reach, size + reach, device=device) % (2 * size)
    return torch.where(positions < size, positions, 2 * size - 1 - positions)
