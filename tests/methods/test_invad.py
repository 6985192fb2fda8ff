"""InvAD against recorded numbers of its authors' code."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_ad.detector.normals import learn_normals, relative
from lightning_ad.detector.scoring import checked_compare
from lightning_ad.maths import diffusion
from lightning_ad.maths.inversion import ddim_invert, inversion_times, negative_log_likelihood
from lightning_ad.methods import InvAD
from lightning_ad.methods.invad import IMAGE_SCORES
from lightning_ad.networks import FeatureDiT
from tests.methods.tiny import images, rates, tiny_pyramid
from tests.recordings import every_fourth, fill_baseline, recorded

ALPHA_BAR = diffusion.linear_schedule(1000, 1e-4, 0.02).float()


class StandIn(nn.Module):
    """The recording's denoiser."""

    side = 8

    def __init__(self) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(24, 12, 3, 3))
        self.w2 = nn.Parameter(torch.empty(12, 24, 3, 3))
        fill_baseline(self)

    def forward(self, x, t):
        hidden = F.relu(F.conv2d(x, self.w1, padding=1))
        return F.conv2d(hidden, self.w2, padding=1) * (0.5 + t.view(-1, 1, 1, 1) / 2000)


class AsTheyAre(nn.Module):
    """A pyramid whose only layer is its input."""

    def forward(self, features):
        return [features]


@pytest.fixture
def case():
    return recorded("inversion")


@pytest.mark.parametrize("steps", [3, 5, 10])
def test_network_is_called_at_the_authors_times(case, steps):
    assert inversion_times(1000, steps) == case[f"timesteps_{steps}"].tolist()


@torch.no_grad()
def test_inverted_features_are_the_authors(case):
    z = ddim_invert(StandIn(), case["features"], ALPHA_BAR, inversion_times(1000, 3))
    torch.testing.assert_close(z, case["latent_3"], rtol=1e-4, atol=1e-4)
    z = ddim_invert(StandIn(), case["features"], ALPHA_BAR, inversion_times(1000, 10))
    torch.testing.assert_close(z.norm(dim=1), case["norm_10"], rtol=1e-4, atol=1e-4)
    first = ddim_invert(StandIn(), case["features"], ALPHA_BAR[[0, 500]], [0])
    assert not torch.allclose(first, z)


@torch.no_grad()
def test_map_and_image_scores_are_the_authors(case):
    detector = InvAD(StandIn(), AsTheyAre()).eval()
    z = ddim_invert(StandIn(), case["features"], ALPHA_BAR, detector.times)
    surprise = negative_log_likelihood(z).sum((1, 2, 3))
    torch.testing.assert_close(surprise, case["nll_3"], rtol=1e-4, atol=0)
    larger = F.interpolate(case["features"], (64, 64), mode="nearest")
    detector.described = lambda image: case["features"]
    _, parts = detector.compare(larger, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(
        every_fourth(parts["length"])[:, 0], case["anomaly_map_3"], rtol=1e-4, atol=1e-4
    )
    spread, surprise = detector.image_scores(parts)
    torch.testing.assert_close(spread, case["spread_3"], rtol=1e-4, atol=0)
    torch.testing.assert_close(surprise, case["nll_3"], rtol=1e-4, atol=0)


@torch.no_grad()
def test_training_pair_and_loss_are_the_authors(case):
    detector = InvAD(StandIn(), AsTheyAre())
    losses = [
        detector.denoise_loss(case["features"][i : i + 1], case["train_t"][i : i + 1], noise)
        for i, noise in enumerate(case["train_noise"].split(1))
    ]
    torch.testing.assert_close(torch.stack(losses), case["train_loss"], rtol=1e-4, atol=0)


def test_training_draws_every_time_alike_and_for_each_image():
    torch.manual_seed(0)
    detector = InvAD(StandIn(), AsTheyAre())
    detector.denoise_loss = lambda features, t, noise: t
    t = detector.loss(torch.zeros(20_000, 1, 8, 8), torch.zeros(20_000, dtype=torch.long))
    drawn = np.bincount(t)
    assert drawn.shape == (1000,) and drawn.all()
    np.testing.assert_allclose(drawn.reshape(10, 100).sum(1), 2000, rtol=0.1)


def test_the_learning_rate_is_the_papers():
    """From 1e-6 to 5e-5 in 40 of 300 epochs, then along half a cosine to nothing."""
    rise = np.linspace(1e-6, 5e-5, 40, endpoint=False)
    fall = 5e-5 * (1 + np.cos(np.pi * np.arange(260) / 260)) / 2
    np.testing.assert_allclose(rates(InvAD(StandIn(), AsTheyAre()), 300), [*rise, *fall])


def test_image_scores_are_scaled_by_the_held_out_normals():
    detector = InvAD(StandIn(), AsTheyAre()).eval()
    detector.set_constants(
        {
            "spread_min": torch.tensor([2.0, 1.0]),
            "spread_max": torch.tensor([3.0, 4.0]),
            "surprise_mean": torch.tensor([-50.0, -10.0]),
        }
    )
    scores = detector.score(torch.zeros(3, 1, 4, 4), parts_of([1, 2, 5], [-50, -20, 30]))
    torch.testing.assert_close(scores, torch.tensor([0.0, 0.5 + 0.75, 2.0 + 2.0]))


def parts_of(spread, surprise):
    """Maps (B, 1, 4, 4) with these image scores (B,)."""
    lengths, unlikely = torch.full((len(spread), 1, 4, 4), 7.0), torch.zeros(len(spread), 1, 4, 4)
    lengths[:, 0, 1, 2] += torch.tensor(spread)
    unlikely[:, 0, 3, 0] += 16 * torch.tensor(surprise)
    return {"spread": lengths, "surprise": unlikely}


@torch.no_grad()
def test_image_scores_are_of_judged_cells_alone(case):
    detector = InvAD(StandIn(), AsTheyAre()).eval()
    for name in IMAGE_SCORES:
        detector.calibration[f"{name}_range"] = torch.tensor([0.0, 1.0])
    detector.described = lambda image: case["features"]
    judged = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    judged[:, :, 8:24, 16:40] = 1  # 2 x 3 cells of 8 x 8 pixels
    judged[1, :, 40:48, 16:24] = 1  # and in the second image one that lies apart
    found = detector.detect(torch.zeros(2, 3, 64, 64), torch.zeros(2, dtype=torch.long), judged)
    z = ddim_invert(StandIn(), case["features"], ALPHA_BAR, detector.times)
    cells, expected = judged[:, 0, ::8, ::8].bool(), []
    for latents, own in zip(z, cells, strict=True):
        inside = latents[:, own]
        lengths = inside.norm(dim=0)
        surprise = 64 * 0.5 * (inside.square().sum(0) + 12 * math.log(2 * math.pi)).mean()
        expected.append(lengths.max() - lengths.min() + surprise)
    torch.testing.assert_close(found.score, torch.stack(expected), rtol=1e-4, atol=0)


def test_a_share_of_largest_values_is_refused():
    with pytest.raises(ValueError, match=r"model\.top_share has no meaning for InvAD"):
        InvAD(StandIn(), AsTheyAre(), top_share=0.1)


@torch.no_grad()
def test_scores_may_be_relative_to_normal_images(case):
    detector = InvAD(StandIn(), AsTheyAre(), standardize=True).eval()
    detector.described = lambda image: case["features"][torch.arange(len(image)) % 2]
    category = torch.zeros(6, dtype=torch.long)
    _, plain = detector.compare(images(6), category)
    noise = torch.rand(6, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    rows = {"category": category, **{name: part + noise for name, part in plain.items()}}
    learn_normals(detector.calibration, [rows], 1)
    _, parts = checked_compare(detector, images(6), category)
    assert set(parts) == set(plain)
    for name, part in parts.items():
        statistics = (detector.calibration[f"{name}_{of}"][:1] for of in ("mean", "deviation"))
        torch.testing.assert_close(part, relative(plain[name], *statistics))


def test_layers_are_resized_and_side_by_side():
    detector = InvAD(FeatureDiT(14, side=4, width=8, depth=1, heads=2), tiny_pyramid())
    first, second = tiny_pyramid()(images(2))
    described = detector.described(images(2))
    assert described.shape == (2, 14, 4, 4)
    torch.testing.assert_close(described[:, 6:], second)
    torch.testing.assert_close(described[:, :6], F.avg_pool2d(first, 2))  # half as large


def test_other_channels_than_the_features_are_named():
    detector = InvAD(FeatureDiT(13, side=4, width=8, depth=1, heads=2), tiny_pyramid())
    with pytest.raises(ValueError, match=r"have 14 channels together, model\.denoiser takes 13"):
        detector.described(images(1))


def test_a_transformer_starts_at_no_noise_and_has_the_papers_size():
    small = FeatureDiT(14, side=4, width=8, depth=2, heads=2)
    assert not small(torch.randn(2, 14, 4, 4), torch.tensor([0, 999])).any()
    with torch.device("meta"):
        whole = FeatureDiT()
    size = sum(p.numel() for p in whole.parameters())
    assert size == pytest.approx(1224e6, rel=0.002)


def test_tokens_see_each_other_the_time_and_their_places():
    torch.manual_seed(0)
    network = FeatureDiT(3, side=4, width=8, depth=1, heads=2)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(1, 3, 4, 4)
    out = network(x, torch.tensor([5]))
    assert not torch.allclose(out, network(x, torch.tensor([6])))
    changed = x.clone()
    changed[..., 0, 0] += 1
    assert not torch.allclose(out[..., 3, 3], network(changed, torch.tensor([5]))[..., 3, 3])
    assert not torch.allclose(out.flip(3), network(x.flip(3), torch.tensor([5])), atol=1e-3)
