"""The plain maths of diffusion: schedules, noising and the DDIM sampler as functions on tensors.

A schedule is a tensor ``alpha_bar`` (T,), the cumulative product of 1 - beta; a time of -1 or less
stands for the clean image (alpha_bar = 1). Names follow the papers: ``x0`` clean, ``xt`` noised,
``eps`` the noise. Source: Ho et al., DDPM, arXiv 2006.11239; Song et al., DDIM, arXiv 2010.02502.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(xt (B, C, H, W), t (B,)) -> eps (B, C, H, W)."""

Correct = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(eps, xt, t) -> the eps that the sampler goes on with, all as in `Denoise`."""

Noise = Callable[[], Tensor]
"""Draws standard normal noise shaped like the sample."""


def linear_schedule(steps: int, beta_start: float, beta_end: float) -> Tensor:
    """Alpha-bar (steps,) float64 of betas that grow linearly (DDPM, section 4)."""
    return torch.cumprod(1 - torch.linspace(beta_start, beta_end, steps, dtype=torch.float64), 0)


def squared_cosine_schedule(steps: int) -> Tensor:
    """Alpha-bar (steps,) float64 of the squared-cosine schedule (arXiv 2102.09672, eq. 17)."""
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    curve = torch.cos((times + 0.008) / 1.008 * math.pi / 2) ** 2
    return torch.cumprod(1 - (1 - curve[1:] / curve[:-1]).clamp(max=0.999), 0)


def alpha_bar_at(alpha_bar: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Alpha-bar of each image's time t (B,), shaped (B, 1, ...) to scale ``like`` (B, ...)."""
    values = torch.where(t < 0, 1.0, alpha_bar[t.clamp(min=0)])
    return values.view(-1, *[1] * (like.ndim - 1))


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor, t: Tensor) -> Tensor:
    """Noise x0 (B, ...) to the times t (B,): sqrt(ab) x0 + sqrt(1 - ab) noise (DDPM, eq. 4)."""
    ab = alpha_bar_at(alpha_bar, t, x0)
    return ab.sqrt().to(x0.dtype) * x0 + (1 - ab).sqrt().to(x0.dtype) * noise


def predict_x0(xt: Tensor, eps: Tensor, alpha_bar: Tensor, t: Tensor) -> Tensor:
    """The clean image that xt (B, ...) and its noise eps imply at times t (B,) (DDIM, eq. 9)."""
    ab = alpha_bar_at(alpha_bar, t, xt)
    return (xt - (1 - ab).sqrt().to(xt.dtype) * eps) / ab.sqrt().to(xt.dtype)


def guide_towards(target: Tensor, alpha_bar: Tensor, weight: Tensor | float) -> Correct:
    """Correction that pulls the sample towards ``target`` (B, ...) (DDAD, arXiv 2305.15956, eq. 6).

    ``weight`` is one number or one per image (B,).
    """
    if isinstance(weight, Tensor):
        weight = weight.view(-1, *[1] * (target.ndim - 1))

    def correct(eps: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        yt = add_noise(target, eps, alpha_bar, t)
        scale = (1 - alpha_bar_at(alpha_bar, t, xt)).sqrt().to(xt.dtype)
        return eps - scale * weight * (yt - xt)

    return correct


def ddim_reverse(
    denoise: Denoise,
    xt: Tensor,
    timesteps: Tensor,
    alpha_bar: Tensor,
    eta: float = 0.0,
    noise: Noise | None = None,
    correct: Correct | None = None,
) -> Tensor:
    """Walk xt (B, ...) back along ``timesteps`` (S, B), each image on its own levels, to x0.

    Every row costs one network call and the last step arrives at the clean image (DDIM, eq. 12).
    ``eta`` > 0 needs ``noise``; ``correct`` may change eps before it is used.
    """
    if eta > 0 and noise is None:
        raise ValueError(f"eta is {eta}: a stochastic sampler needs a source of noise")
    arrival = torch.full_like(timesteps[:1], -1)
    for t, t_next in zip(timesteps, torch.cat([timesteps[1:], arrival]), strict=True):
        eps = denoise(xt, t).to(xt.dtype)
        if correct is not None:
            eps = correct(eps, xt, t)
        ab, ab_next = (alpha_bar_at(alpha_bar, time, xt) for time in (t, t_next))
        sigma = eta * ((1 - ab / ab_next) * (1 - ab_next) / (1 - ab)).sqrt()
        # The step, sqrt(ab') x0 + sqrt(1 - ab' - sigma²) eps, as a sum of xt and eps.
        keep = (ab_next / ab).sqrt()
        add = (1 - ab_next - sigma**2).clamp(min=0).sqrt() - keep * (1 - ab).sqrt()
        xt = keep.to(xt.dtype) * xt + add.to(xt.dtype) * eps
        if noise is not None and eta > 0:
            xt = xt + sigma.to(xt.dtype) * noise()
    return xt


def evenly_spaced(levels: Tensor, steps: int) -> Tensor:
    """Timesteps (steps, B) from just below each image's level (B,) down to 0, in equal strides.

    A level L gives L - s, ..., s, 0 with s = L / steps: the network is first asked one stride below
    the level the image is noised to, as in DDAD and D3AD. Levels must be multiples of ``steps``.
    """
    if not torch.compiler.is_exporting() and (levels % steps).any():
        raise ValueError(f"levels {levels.tolist()} are not all multiples of {steps} steps")
    counts = torch.arange(steps - 1, -1, -1, device=levels.device)
    return counts[:, None] * (levels // steps)[None, :]


def require_level(name: str, level: int, steps: int, alpha_bar: Tensor) -> None:
    """Raise a ValueError unless ``steps`` equal strides lead from ``level`` to 0 in the schedule.

    ``name`` is what the setting is called in a configuration.
    """
    if not 0 < level < len(alpha_bar):
        raise ValueError(f"{name} must lie between 1 and {len(alpha_bar) - 1}, not {level}")
    if steps < 1 or level % steps:
        raise ValueError(f"{name} ({level}) must be a multiple of model.steps ({steps})")


def image_seeds(image: Tensor) -> list[int]:
    """One seed per image (B, C, H, W) in [-1, 1], from its pixels alone.

    A stochastic sampler seeded this way draws the same noise for an image in any batch, in any
    order and on any process.
    """
    pixels = ((image.flatten(1).float() + 1) * 127.5).round().long()
    # Position-dependent weights below 2^31: integer sums that cannot overflow up to 1024 px.
    weights = torch.arange(1, pixels.shape[1] + 1, device=image.device) * 2654435761 % (2**31 - 1)
    return (pixels * weights).sum(1).tolist()


def seeded_noise(image: Tensor, shape: torch.Size | None = None) -> Noise:
    """Noise (B, *shape), by default of the images' shape, from a generator per image."""
    generators = [torch.Generator(image.device).manual_seed(seed) for seed in image_seeds(image)]
    size = shape or image.shape[1:]

    def draw() -> Tensor:
        return torch.stack(
            [torch.randn(size, generator=g, device=image.device) for g in generators]
        )

    return draw
