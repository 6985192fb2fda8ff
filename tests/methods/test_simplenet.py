"""SimpleNet against the authors' recorded numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_ad.maths import maps
from lightning_ad.maths.pooled_patches import pooled_patches
from lightning_ad.methods import SimpleNet
from tests.methods.tiny import images, same_weights, tiny_pyramid, weights_of
from tests.recordings import every_fourth, fill_baseline, recorded

AUTHORS_NAMES = {
    "adaptor": "layers.0fc",
    "discriminator.0": "body.block1.0",
    "discriminator.1": "body.block1.1",
    "discriminator.3": "tail",
}


@pytest.fixture
def case():
    return recorded("simplenet")


@pytest.fixture
def detector():
    made = SimpleNet(nn.Identity(), dimensions=48, hidden=32)
    names = {
        own: f"{AUTHORS_NAMES[own.rpartition('.')[0]]}.{own.rpartition('.')[2]}"
        for own in made.state_dict()
    }
    fill_baseline(made, names)
    return made.eval()


def embedding(case):
    return pooled_patches([case["layer2"], case["layer3"]], 48)


def rows(patches):
    return patches.movedim(1, -1).flatten(0, -2)


def test_patches_are_embedded_as_by_the_authors(case):
    torch.testing.assert_close(rows(embedding(case))[::8], case["embedding"])


def test_training_is_the_authors(case, detector):
    detector.enter_phase("train")
    patches = rows(embedding(case))
    loss = detector.discrimination_loss(patches, case["noise"])
    loss.backward()
    torch.testing.assert_close(loss, case["loss"])
    gradient = detector.adaptor.weight.grad[::8]
    torch.testing.assert_close(gradient, case["projection_weight_grad"], rtol=1e-4, atol=1e-5)


def test_noise_has_the_papers_deviation_and_is_drawn_for_each_patch():
    torch.manual_seed(0)
    detector, seen = SimpleNet(tiny_pyramid(), dimensions=14, hidden=8), []
    detector.discriminator.register_forward_pre_hook(lambda module, given: seen.extend(given))
    detector.loss(images(16), torch.zeros(16, dtype=torch.long))
    adapted, noisy = seen[0].chunk(2)
    deviation = (noisy - adapted).std(0)
    torch.testing.assert_close(deviation, torch.full((14,), 0.015), rtol=0.1, atol=0)


def test_adaptor_and_discriminator_learn_and_decay_as_the_authors():
    detector = SimpleNet(nn.Identity(), dimensions=14, hidden=8)
    groups = detector.configure_optimizers().param_groups
    found = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert {found.pop(p) for p in detector.adaptor.parameters()} == {(1e-4, 1e-2)}
    assert {found.pop(p) for p in detector.discriminator.parameters()} == {(2e-4, 1e-5)}
    assert not found


def test_training_scores_are_the_authors(case, detector):
    detector.enter_phase("train")
    adapted = detector.adaptor(rows(embedding(case)))
    normal, noisy = detector.discriminator(torch.cat([adapted, adapted + case["noise"]])).chunk(2)
    torch.testing.assert_close(normal, case["train_scores_true"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(noisy, case["train_scores_noised"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_scores_and_maps_are_the_authors(case, detector):
    scores = detector.patch_scores(embedding(case))
    torch.testing.assert_close(scores.flatten(1).amax(1), case["image_score"])
    resized = F.interpolate(scores, (96, 96), mode="bilinear", align_corners=False)
    ours, theirs = every_fourth(maps.gaussian_blur(resized, 4.0))[:, 0], case["anomaly_map"]
    inside = slice(4, -4)  # the authors' filter repeats the border's pixel, ours does not
    torch.testing.assert_close(ours[:, inside, inside], theirs[:, inside, inside])


def test_an_image_scores_as_its_largest_patch_and_the_map_is_smoothed():
    detector = SimpleNet(tiny_pyramid(), dimensions=14, hidden=8, blur=1.0).eval()
    detector.match_categories(["carpet"], "fit")
    with torch.no_grad():
        found = detector.detect(images(2), torch.zeros(2, dtype=torch.long))
    assert found.reconstruction is None
    torch.testing.assert_close(found.score, found.parts["patch"].flatten(1).amax(1))
    assert (found.anomaly_map.flatten(1).amax(1) < found.score).all()


def test_a_share_of_the_largest_values_scores_before_the_map_is_smoothed():
    detector = SimpleNet(tiny_pyramid(), dimensions=14, hidden=8, top_share=0.1).eval()
    detector.match_categories(["carpet"], "fit")
    found = detector.detect(images(2), torch.zeros(2, dtype=torch.long))
    largest = found.parts["patch"].flatten(1).sort(1, descending=True).values
    torch.testing.assert_close(found.score, largest[:, :26].mean(1))  # of 16 x 16


def test_training_moves_adaptor_and_discriminator_and_leaves_the_features():
    torch.manual_seed(0)
    fast = {"optimizer": lambda p: torch.optim.AdamW(p, lr=1e-2), "adaptor_lr": 1e-2}
    detector = SimpleNet(tiny_pyramid(), dimensions=14, hidden=8, noise=0.5, **fast)
    detector.match_categories(["carpet"], "fit")
    detector.enter_phase("train")
    before = weights_of(detector.features)
    optimizer, losses = detector.configure_optimizers(), []
    for _ in range(150):
        loss = detector.loss(images(4), torch.zeros(4, dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert same_weights(detector.features, before)
