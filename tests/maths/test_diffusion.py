"""The sampler against recorded numbers, diffusers' schedulers and its own promises."""

import diffusers
import pytest
import torch

from lightning_ad.maths import diffusion as df
from tests.recordings import recorded

T = 1000


def fake_denoiser(xt, t):
    return torch.tanh(xt * 0.7 + 0.001 * t.view(-1, 1, 1, 1))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_reverse_equals_diffusers(eta):
    alpha_bar = df.linear_schedule(T, 1e-4, 0.02)
    scheduler = diffusers.DDIMScheduler(
        T, 1e-4, 0.02, "linear", clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(10)
    times = scheduler.timesteps
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 3, 8, 8, generator=generator)
    noises = [torch.randn(x.shape, generator=generator) for _ in times]
    expected = x
    for t, noise in zip(times, noises, strict=True):
        eps = fake_denoiser(expected, t.expand(3))
        step = scheduler.step(eps, t, expected, eta=eta, variance_noise=noise)
        expected = step.prev_sample
    draws = iter(noises)
    result = df.ddim_reverse(
        fake_denoiser, x, times[:, None].expand(-1, 3), alpha_bar, eta, lambda: next(draws)
    )
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_schedules_equal_diffusers():
    linear = diffusers.DDPMScheduler(T, 0.0015, 0.0195, "linear").alphas_cumprod
    torch.testing.assert_close(df.linear_schedule(T, 0.0015, 0.0195).float(), linear)
    cosine = diffusers.DDPMScheduler(10, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    torch.testing.assert_close(df.squared_cosine_schedule(10).float(), cosine)


def test_squared_cosine_schedule_is_the_published_one():
    published = recorded("deco_training")["alphas_cumprod"]
    torch.testing.assert_close(df.squared_cosine_schedule(10), published, rtol=1e-9, atol=0)


def test_add_noise_and_predict_x0_are_inverse():
    alpha_bar = df.linear_schedule(T, 1e-4, 0.02)
    x0, eps, t = torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8), torch.tensor([0, 10, 500, -1])
    xt = df.add_noise(x0, eps, alpha_bar, t)
    torch.testing.assert_close(xt[3], x0[3])
    torch.testing.assert_close(df.predict_x0(xt, eps, alpha_bar, t), x0, rtol=1e-3, atol=1e-3)


def test_images_on_their_own_levels_equal_images_alone():
    alpha_bar = df.linear_schedule(T, 1e-4, 0.02)
    x = torch.randn(3, 3, 8, 8)
    times = df.evenly_spaced(torch.tensor([20, 50, 80]), 10)
    together = df.ddim_reverse(fake_denoiser, x, times, alpha_bar)
    for i in range(3):
        alone = df.ddim_reverse(fake_denoiser, x[i : i + 1], times[:, i : i + 1], alpha_bar)
        torch.testing.assert_close(alone[0], together[i])


def test_evenly_spaced_follows_ddad():
    times = df.evenly_spaced(torch.tensor([250]), 10)
    assert times[:, 0].tolist() == [225, 200, 175, 150, 125, 100, 75, 50, 25, 0]
    with pytest.raises(ValueError, match="multiples of 10"):
        df.evenly_spaced(torch.tensor([255]), 10)


def test_seeded_noise_ignores_neighbours_and_is_normal():
    images = torch.randint(0, 256, (3, 3, 32, 32)) / 127.5 - 1
    together = df.seeded_noise(images)
    first, second = together(), together()
    alone = df.seeded_noise(images[1:2])
    assert torch.equal(alone(), first[1:2]) and torch.equal(alone(), second[1:2])
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.05 and abs(float(first.std()) - 1) < 0.05


def test_seeds_tell_apart_images_that_differ_in_one_pixel():
    image = torch.full((2, 3, 8, 8), 99 / 127.5 - 1)
    image[1, 2, 7, 7] += 1 / 127.5
    first, second = df.image_seeds(image)
    assert first != second


def test_stochastic_sampler_without_noise_is_refused():
    with pytest.raises(ValueError, match="noise"):
        df.ddim_reverse(
            fake_denoiser,
            torch.zeros(1, 3, 4, 4),
            torch.zeros(1, 1, dtype=torch.long),
            df.linear_schedule(T, 1e-4, 0.02),
            eta=1.0,
        )
