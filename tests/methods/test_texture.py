"""Blur guidance against its identities and a step written out, and what every detector promises."""

import math

import pytest
import torch

from lightning_ad.maths import diffusion, maps
from lightning_ad.methods import TextureDDM
from lightning_ad.methods.texture import blur_guidance
from lightning_ad.networks.attention_mask import WatchedAttention
from tests.methods.tiny import (
    SIZE,
    TinyPyramid,
    images,
    plain_map,
    same_weights,
    tiny_denoiser,
    tiny_pyramid,
    weights_of,
)


def texture(**settings):
    detector = TextureDDM(tiny_denoiser(), tiny_pyramid(), steps=2, blur_sigma=1.0, **settings)
    detector.match_categories(["carpet", "grid"], "fit")
    detector.calibration["ratio"] = torch.tensor(2.0)
    return detector.eval()


def reconstruct(detector, count=2):
    image = images(count)
    with torch.no_grad():
        return detector.reconstruct(image, torch.full((count,), 3.0), diffusion.seeded_noise(image))


def test_scale_1_is_ddads_reconstruction():
    detector, image = texture(blur_scale=1), images(2)
    noise, level = diffusion.seeded_noise(image), torch.full((2,), 250)
    with torch.no_grad():
        unguided = diffusion.ddim_reverse(
            detector.denoiser,
            diffusion.add_noise(image, noise(), detector.alpha_bar, level),
            torch.tensor([[125, 125], [0, 0]]),
            detector.alpha_bar,
            1.0,
            noise,
            diffusion.guide_towards(image, detector.alpha_bar, 3.0),
        )
    assert torch.equal(reconstruct(detector), unguided)
    almost_1 = reconstruct(texture(blur_scale=1 + 1e-6))
    torch.testing.assert_close(almost_1, unguided, rtol=1e-4, atol=1e-4)


def test_guidance_changes_the_reconstruction():
    assert (
        reconstruct(texture(blur_scale=1.5)) - reconstruct(texture(blur_scale=1))
    ).abs().max() > 1e-3


def test_one_step_written_out():
    """The equations of one step, in the order the guidance's source defines."""
    denoiser, alpha_bar = tiny_denoiser(), texture().alpha_bar
    target, xt = images(2).split(1)
    ab, s, w, t = alpha_bar[125], 1.3, 3.0, torch.tensor([125])

    def blur(x0):
        return maps.gaussian_blur(x0, 1.0)

    with torch.no_grad():
        eps = denoiser(xt, t)
        yt = ab.sqrt() * target + (1 - ab).sqrt() * eps
        eps_hat = eps - (1 - ab).sqrt() * w * (yt - xt)
        x0 = (xt - (1 - ab).sqrt() * eps_hat) / ab.sqrt()
        eps_blurred = denoiser(ab.sqrt() * blur(x0) + (1 - ab).sqrt() * eps_hat, t)
        pull = diffusion.guide_towards(target, alpha_bar, w)
        corrected = blur_guidance(denoiser, pull, blur, s, alpha_bar)(eps, xt, t)
    expected = eps_blurred + s * (eps_hat - eps_blurred)
    torch.testing.assert_close(corrected, expected, rtol=1e-4, atol=1e-5)


def test_map_written_out():
    detector = texture(pixel_weight=3.0, scored_layers=1, smoothing=1.0)
    ours, plain = plain_map(detector, images(2), v=3.0, ratio=2.0, sigma=1.0)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_distances_are_balanced_by_their_maxima_on_normal_images():
    detector = texture()
    extremes = {"feature_min": 0.5, "feature_max": 3.0, "pixel_min": 0.1, "pixel_max": 0.75}
    detector.set_constants({name: torch.tensor([value]) for name, value in extremes.items()})
    assert float(detector.calibration["ratio"]) == pytest.approx(4)


def test_loss_is_of_the_noise_at_times_from_the_whole_schedule():
    detector, inputs = texture(), []
    detector.denoiser = torch.nn.Module()
    detector.denoiser.forward = lambda xt, t: inputs.append((xt, t)) or torch.zeros_like(xt)
    loss = detector.loss(torch.zeros(4000, 3, 1, 1), torch.zeros(4000, dtype=torch.long))
    xt, t = inputs[0]
    assert t.min() < 10 and 990 <= t.max() < 1000
    noise = xt / (1 - detector.alpha_bar[t]).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(loss, noise.square().mean())


def test_blur_leaves_a_constant_image():
    constant = torch.full((1, 3, SIZE, SIZE), 0.3)
    torch.testing.assert_close(texture().blur(constant), constant)


@pytest.mark.parametrize(("size", "sigma"), [(128, 3.0), (256, 9.0)])
def test_blur_follows_the_image_size(size, sigma):
    image = torch.randn(1, 3, size, size)
    detector = TextureDDM(tiny_denoiser(), tiny_pyramid())
    blurred = maps.gaussian_blur(image, sigma, 31)
    torch.testing.assert_close(detector.blur(image), blurred)


def test_mask_of_everything_is_no_mask():
    unmasked = reconstruct(texture(blur_scale=1.5))
    assert torch.equal(reconstruct(texture(blur_scale=1.5, attention_threshold=0.0)), unmasked)
    masked = reconstruct(texture(blur_scale=1.5, attention_threshold=1.0))
    assert not torch.allclose(masked, unmasked, atol=1e-3)


def test_mask_of_nothing_is_no_guidance():
    """Nothing blurred: the second call repeats the first, and without a pull nothing is left."""
    nowhere = texture(blur_scale=1.5, attention_threshold=math.inf, eta=0.0)
    plain, image = texture(blur_scale=1, eta=0.0), images(2)
    with torch.no_grad():
        a, b = (
            detector.reconstruct(image, torch.zeros(2), diffusion.seeded_noise(image))
            for detector in (nowhere, plain)
        )
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_mask_is_where_positions_draw_more_attention_than_on_average():
    denoiser, inputs = tiny_denoiser(), []
    attention = denoiser.unet.mid_block.attentions[0]
    hook = attention.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad(), WatchedAttention(denoiser) as watched:
        denoiser(images(2), torch.tensor([5, 400]))
        mask = watched.mask(1.0, (SIZE, SIZE))
    hook.remove()
    assert mask.shape == (2, 1, SIZE, SIZE)
    assert not attention._forward_pre_hooks
    for image, hidden in enumerate(inputs[0]):
        drawn = _drawn_attention(attention, hidden)
        assert drawn.mean() == pytest.approx(1)
        expected = (drawn > 1).view(8, 8).repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert torch.equal(mask[image, 0], expected)


def _drawn_attention(attention, hidden):
    """Head by head and query by query, (positions,)."""
    tokens = attention.group_norm(hidden.flatten(1)[None])[0].T.detach()
    total = torch.zeros(len(tokens))
    for query, key in zip(
        attention.to_q(tokens).detach().chunk(2, 1),
        attention.to_k(tokens).detach().chunk(2, 1),
        strict=True,
    ):
        for q in query:
            total += torch.softmax(key @ q / math.sqrt(len(q)), 0) / attention.heads
    return total


@pytest.mark.parametrize("attention_threshold", [None, 1.0])
def test_neighbours_do_not_matter(attention_threshold):
    detector = texture(attention_threshold=attention_threshold, guidance={"carpet": 0, "grid": 4})
    image, category = images(3), torch.tensor([0, 1, -1])
    with torch.no_grad():
        together = detector.detect(image, category)
        for i in range(3):
            alone = detector.detect(image[i : i + 1], category[i : i + 1])
            torch.testing.assert_close(
                alone.anomaly_map[0], together.anomaly_map[i], rtol=1e-5, atol=1e-5
            )


def test_only_the_denoiser_trains():
    detector = texture()
    detector.enter_phase("denoise")
    denoiser, features = weights_of(detector.denoiser), weights_of(detector.features)
    optimizer = detector.configure_optimizers()
    detector.loss(images(2), torch.zeros(2, dtype=torch.long)).backward()
    optimizer.step()
    assert not same_weights(detector.denoiser, denoiser)
    assert same_weights(detector.features, features)


def test_settings_that_cannot_work_are_refused_at_once():
    with pytest.raises(ValueError, match=r"level \(250\) must be a multiple of model\.steps"):
        TextureDDM(tiny_denoiser(), tiny_pyramid(), level=250, steps=3)
    with pytest.raises(ValueError, match=r"model\.level must lie between 1 and 999, not 1000"):
        TextureDDM(tiny_denoiser(), tiny_pyramid(), level=1000)
    with pytest.raises(TypeError, match="not of a TinyPyramid"):
        TextureDDM(TinyPyramid(), tiny_pyramid(), attention_threshold=1.0)
    detector = TextureDDM(tiny_denoiser(), tiny_pyramid(), guidance={"carpet": 1.0})
    with pytest.raises(ValueError, match=r"model.guidance has no entry for \['grid'\]"):
        detector.match_categories(["carpet", "grid"], "fit")
