"""Losses that compare images and maps, beyond squared error: pure functions on tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Side in pixels and sigma of the Gaussian window (Wang et al., IEEE TIP 2004, section III.B)."""


def ssim_loss(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """1 - structural similarity (Wang et al. 2004, eq. 13) of images (B, C, H, W), averaged.

    The window sees zeros beyond the border. ``data_range`` is the largest minus the smallest
    possible value.
    """
    window = _gaussian_window(a.shape[1]).to(a)

    def mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, padding=SSIM_WINDOW // 2, groups=x.shape[1])

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    contrast = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return 1 - (luminance * contrast).mean()


def _gaussian_window(channels: int) -> Tensor:
    offsets = torch.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    line = line / line.sum()
    return torch.outer(line, line).expand(channels, 1, SSIM_WINDOW, SSIM_WINDOW)


def focal_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Mean of -(1 - p)^2 ln p (Lin et al., ICCV 2017, eq. 4), p the true class's probability.

    ``probabilities`` (B, classes, H, W) sum to 1 over the classes, ``target`` (B, 1, H, W) numbers
    the true one. DRAEM smooths the truth by 1e-5, which keeps the logarithm finite.
    """
    smooth = 1e-5
    classes = probabilities.shape[1]
    truth = F.one_hot(target.long().squeeze(1), classes).movedim(-1, 1).to(probabilities)
    truth = truth.clamp(smooth / (classes - 1), 1 - smooth)
    p = (truth * probabilities).sum(1) + smooth
    return (-((1 - p) ** 2) * p.log()).mean()
