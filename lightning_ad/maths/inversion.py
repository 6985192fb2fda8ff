"""DDIM inversion: from clean data up the noise schedule, along the sampler's own path.

Sakai et al., "InvAD", CVPR 2026, arXiv 2504.05662: what a model of normal data knows arrives at
what looks like noise, what it does not know stays visible. Equation (3) there, which is the
deterministic sampler of DDIM (Song et al., 2021) walked backwards.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]
"""Noise eps(xt, t) in xt (B, C, H, W) at times t (B,)."""


def inversion_times(length: int, steps: int) -> list[int]:
    """Times of the network calls: 0 to T - 1, as evenly as integers allow."""
    return torch.linspace(0, length - 1, steps, dtype=torch.float64).round().int().tolist()


def ddim_invert(predict: Predict, x0: Tensor, alpha_bar: Tensor, times: list[int]) -> Tensor:
    """Noise x0 (B, C, H, W) with the noise that the network itself sees in it at each time.

    From each time the step leads to the next one; the last arrives where alpha-bar is 0, so that
    the result is the last prediction.
    """
    levels = [*(alpha_bar[t] for t in times), torch.zeros_like(alpha_bar[0])]
    xt = x0
    for t, (here, there) in zip(times, pairwise(levels), strict=True):
        eps = predict(xt, torch.full((xt.shape[0],), t, device=xt.device))
        clean = (xt - (1 - here).sqrt() * eps) / here.sqrt()
        xt = there.sqrt() * clean + (1 - there).sqrt() * eps
    return xt


def negative_log_likelihood(z: Tensor) -> Tensor:
    """-ln p (B, 1, H, W) of each cell of latents z (B, C, H, W), under the standard normal.

    That is where normal data arrive; the cells of an image add up to its own.
    """
    return 0.5 * (z.float().square().sum(1, keepdim=True) + z.shape[1] * math.log(2 * math.pi))
