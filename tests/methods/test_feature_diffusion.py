"""Feature diffusion against Gaussian data, whose best denoiser is known, and its promises."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_ad.maths import maps
from lightning_ad.maths.patches import PatchSpace
from lightning_ad.methods import FeatureDiffusion
from lightning_ad.networks import PatchDenoiser
from tests.methods.tiny import tiny_pyramid
from tests.methods.tiny_features import CATEGORIES, images

PLACES = torch.arange(64)


def detector(categories=1, **settings):
    torch.manual_seed(0)
    denoiser = PatchDenoiser(16, components=5, width=16, stride=2, categories=categories)
    found = FeatureDiffusion(tiny_pyramid(), denoiser, **{"components": 5, "blur": 1.0, **settings})
    found.match_categories(CATEGORIES[:categories], "fit")
    generator = torch.Generator().manual_seed(1)
    projection = torch.randn(14, 5, generator=generator)
    found.take_space(PatchSpace(torch.zeros(14), projection))
    return found


def opinionated(found):
    """The detector with a network that says something; a new one's output is 0."""
    for parameter in found.denoiser.parameters():
        nn.init.normal_(parameter, std=0.3)
    return found.eval()


class BestDenoiser(nn.Module):
    """F of the best denoiser of points N(0, variance): D(y, sigma) = v / (v + sigma^2) y."""

    grid, components, categories = 8, 5, 1

    def __init__(self, variance):
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(variance))

    def forward(self, scaled, sigma, place, category):
        total = 1 + sigma**2
        best = self.variance / (self.variance + sigma**2)
        return (best - 1 / total) * total / sigma * scaled


@pytest.mark.parametrize("sigma", [1.0, 4.0])
def test_the_score_of_gaussian_points_is_their_shrinkage(sigma):
    """At sigma 1 the best denoiser halves points of unit variance: |D - x| = |x| / 2."""
    found, test = detector(scored_level=sigma), images(2)
    found.denoiser = BestDenoiser(1.0)
    with torch.no_grad():
        norm = found.points(test).norm(dim=1, keepdim=True)
        detection = found.detect(test, torch.zeros(2).long())
    shrunk = norm * sigma**2 / (1 + sigma**2)
    large = F.interpolate(shrunk, (16, 16), mode="bilinear", align_corners=False)
    expected = maps.gaussian_blur(large, 1.0)
    torch.testing.assert_close(detection.anomaly_map, expected)
    largest = expected.flatten(1).sort(descending=True).values[:, :3]  # 1 % of 256
    torch.testing.assert_close(detection.score, largest.mean(1))
    assert detection.reconstruction is None


@pytest.mark.parametrize("sigma", [0.3, 1.0, 5.0])
def test_no_variance_has_a_smaller_loss_than_the_datas(sigma):
    found = detector()
    generator = torch.Generator().manual_seed(2)
    x, noise = 0.7 * torch.randn(2, 64, 5000, 5, generator=generator)
    noise /= 0.7

    def loss(variance):
        found.denoiser = BestDenoiser(variance)
        level = torch.full((64, 1, 1), sigma)
        place, category = torch.zeros(5000).long(), torch.zeros(64).long()
        return found.denoise_loss(x, place, category, level, noise).item()

    best = loss(0.49)
    assert best < loss(0.4) and best < loss(0.6)
    # The error of the best denoiser, v s^2 / (v + s^2), in units of the target.
    error = 0.49 * sigma**2 / (0.49 + sigma**2)
    assert best == pytest.approx(error * (1 + sigma**2) / sigma**2, rel=0.02)


def test_noise_levels_are_uniform_in_the_logarithm_one_for_each_image(monkeypatch):
    found, seen = detector(levels=(0.5, 4.0)), []
    monkeypatch.setattr(found, "denoise_loss", lambda x, p, c, sigma, n: seen.append(sigma) or x)
    found.patch_loss(torch.zeros(4000, 2, 5), torch.zeros(2).long(), torch.zeros(4000).long())
    share = (seen[0].flatten() / 0.5).log() / math.log(8)
    assert share.min() >= 0 and share.max() <= 1
    assert float(share.mean()) == pytest.approx(1 / 2, abs=0.02)
    assert float(share.std()) == pytest.approx(12**-0.5, abs=0.01)


def test_a_few_steps_approach_the_best_denoiser():
    torch.manual_seed(0)
    found = detector()
    optimizer = torch.optim.Adam(found.denoiser.parameters(), lr=3e-3)
    for _ in range(300):
        patches = 0.5 * torch.randn(16, 64, 5)
        loss = found.patch_loss(patches, PLACES, torch.zeros(16).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        points = 0.5 * torch.randn(50, 5, 8, 8)
        ratio = found.deviation(points, 0) / points.norm(dim=1)
    assert float(ratio.mean()) == pytest.approx(1 - 0.25 / 1.25, abs=0.05)  # untrained: 0.5


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 0.25), (1, 0.5), (3, 1), (20, 1), (30, 0.5), (38, 0.1), (40, 0)]
)
def test_the_learning_rate_rises_stays_and_falls(monkeypatch, step, rate):
    found = detector(warmup=4)
    trainer = SimpleNamespace(estimated_stepping_batches=40)
    monkeypatch.setattr(FeatureDiffusion, "trainer", trainer)
    assert found.rate(step) == pytest.approx(rate)
    trainer.estimated_stepping_batches = math.inf
    if step:
        with pytest.raises(ValueError, match=r"trainer.max_epochs"):
            found.rate(step)


def test_the_weights_end_as_their_average_which_is_short_at_first(monkeypatch):
    found = detector()
    trainer = SimpleNamespace(global_step=0)
    monkeypatch.setattr(FeatureDiffusion, "trainer", trainer)
    weight = found.denoiser.enter.bias
    found.on_train_start()
    average = weight.detach().clone()
    for step in range(5):
        weight.data.fill_(float(step))
        trainer.global_step = step + 1
        found.on_train_batch_end(None, None, step)
        kept = min(0.998, (step + 1) / (step + 10))
        average = kept * average + (1 - kept) * step
    saved = {"state_dict": found.state_dict()}
    found.on_save_checkpoint(saved)
    assert torch.equal(saved["state_dict"]["denoiser.enter.bias"], weight)
    found.on_train_end()
    torch.testing.assert_close(weight.detach(), average)
    resumed = detector()
    resumed.on_load_checkpoint(saved)
    resumed.on_train_start()
    resumed.on_train_end()
    torch.testing.assert_close(resumed.denoiser.enter.bias.detach(), average)


def test_the_network_is_told_where_patches_lie_and_of_which_category():
    found, told = detector(categories=2), []

    def denoiser(y, sigma, place, category):
        told.append((place.expand(len(y), -1), category))
        return torch.zeros_like(y)

    found.denoiser.forward = denoiser
    with torch.no_grad():
        found.detect(images(3), torch.tensor([1, 0, 1]))
    of_category = {int(category[0]): (place, len(category)) for place, category in told}
    assert {number: count for number, (_, count) in of_category.items()} == {0: 1, 1: 2}
    for place, count in of_category.values():
        assert torch.equal(place, PLACES.expand(count, -1))


def test_the_space_is_half_whitened():
    found, generator = detector(), torch.Generator().manual_seed(1)
    patches = torch.randn(500, 14, generator=generator) * torch.linspace(0.2, 3, 14)
    found.channels, found.components = [14], 14
    sample = SimpleNamespace(rows=patches[None], mean=torch.zeros(1, 14))
    space = found.fitted_space(sample)
    spread = ((patches - space.mean) @ space.projection).var(0)
    own = torch.linalg.eigvalsh(patches.T.cov()).flip(0).sqrt()
    torch.testing.assert_close(spread / spread[0], own / own[0], rtol=0.01, atol=0)


def test_half_precision_leaves_the_patches_as_they_are():
    found, test = detector(), images(2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = found.points(test)
    with torch.no_grad():
        assert torch.equal(half, found.points(test))


def test_an_image_of_no_known_category_is_taken_for_the_likeliest():
    found, test = opinionated(detector(categories=2)), images(6)
    with torch.no_grad():
        grids = [found.deviation(found.points(test), category) for category in (0, 1)]
        unknown = found.detect(test, torch.full((6,), -1)).parts["patch"]
    likeliest = torch.stack(grids).mean((2, 3)).argmin(0)
    for image, category in enumerate(likeliest.tolist()):
        grid = grids[category][image : image + 1, None]
        expected = F.interpolate(grid, (16, 16), mode="bilinear", align_corners=False)
        torch.testing.assert_close(unknown[image : image + 1], expected)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"denoiser takes 5: set its option `components` to 4"):
        detector(components=4)
    with pytest.raises(ValueError, match=r"scored_level must be above 0"):
        detector(scored_level=0.0)
    with pytest.raises(ValueError, match=r"levels must rise"):
        detector(levels=(2.0, 1.0))
    found = detector()
    found.categories = []
    with pytest.raises(
        ValueError, match=r"knows 1 categories, but there are 2, .*categories` to 2"
    ):
        found.match_categories(CATEGORIES, "fit")
    found.channels = [6, 8]
    with pytest.raises(ValueError, match=r"16 x 16 patches, model.denoiser 8 x 8 places"):
        found.check_grid(16, 16)
    found.channels = [2, 2]
    with pytest.raises(ValueError, match=r"4 channels together: set it to at most 4"):
        found.check_grid(8, 8)


def test_a_backbone_is_asked_where_it_lies():
    """A copy that was tried on a GPU brings the backbone back with it, which both share."""
    found = detector()
    found._device = torch.device("meta")  # where the rest was last
    data = SimpleNamespace(
        framing=SimpleNamespace(augment=()),
        training_records=lambda: [SimpleNamespace(category=CATEGORIES[0])] * 3,
        image_size=16,
    )
    found.check_data(data, "fit")
    assert found.channels == [layer.shape[1] for layer in found.features(images(1))]
