"""For Gaussian data the best denoiser is linear and known: the parametrisation must lead there."""

import pytest
import torch

from lightning_ad.maths.edm import denoise, training_target

SIGMAS = [0.3, 1.0, 5.0]


def data(variance=1.0, count=200_000):
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, count, generator=generator, dtype=torch.float64)
    return x * variance**0.5, noise


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_target_leads_back_to_the_clean_points(sigma):
    x, noise = data(count=100)
    sigma = torch.tensor(sigma)
    y = x + sigma * noise
    torch.testing.assert_close(denoise(lambda *_: training_target(x, y, sigma), y, sigma), x)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_target_and_input_of_the_network_have_unit_variance(sigma):
    x, noise = data()
    sigma = torch.tensor(sigma)
    y, seen = x + sigma * noise, []
    denoise(lambda scaled, level: seen.append((scaled, level)) or scaled, y, sigma)
    (scaled, level) = seen[0]
    assert level == sigma
    for values in (scaled, training_target(x, y, sigma)):
        assert float(values.var()) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("variance", [1.0, 0.25])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_linear_fit_of_the_target_is_the_best_denoiser(sigma, variance):
    """Least squares finds F = a y' in the samples; D is then v / (v + sigma^2) y."""
    x, noise = data(variance)
    sigma = torch.tensor(sigma)
    y = x + sigma * noise
    scaled, target = y / (1 + sigma**2).sqrt(), training_target(x, y, sigma)
    slope = (scaled @ target) / (scaled @ scaled)
    found = denoise(lambda seen, level: slope * seen, torch.ones(1), sigma)
    expected = variance / (variance + float(sigma) ** 2)
    assert float(found) == pytest.approx(expected, abs=0.01)
