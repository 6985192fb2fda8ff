"""PatchCore from images to maps against scikit-learn's neighbours, and its promises."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from lightning_ad.maths import maps
from lightning_ad.maths.patches import describe
from lightning_ad.methods import PatchCore
from tests.methods.tiny import tiny_pyramid
from tests.methods.tiny_features import fitted, images

patchcore = partial(fitted, PatchCore)


def test_with_the_whole_memory_a_map_is_the_distance_to_the_nearest_training_patch():
    training, test = images(12), images(2, seed=1)
    detector = patchcore([training], share=1.0)
    with torch.no_grad():
        known = detector.points(training).flatten(2).transpose(1, 2).flatten(0, 1)
        points = detector.points(test).flatten(2).transpose(1, 2).flatten(0, 1)
        found = detector.detect(test, torch.zeros(2).long())
    search = NearestNeighbors(n_neighbors=1).fit(known.numpy())
    expected = search.kneighbors(points.numpy())[0].astype(np.float32)
    grid = torch.from_numpy(expected).view(2, 1, 8, 8)
    blurred = maps.gaussian_blur(
        F.interpolate(grid, (16, 16), mode="bilinear", align_corners=False), 1.0
    )
    torch.testing.assert_close(found.anomaly_map, blurred, rtol=1e-2, atol=1e-2)  # kept as halves
    assert found.reconstruction is None


def test_the_memory_is_a_tenth_and_every_training_patch_is_near_one():
    few, all_ = patchcore(share=0.1), patchcore(share=1.0)
    members, patches = few.calibration["members_0"], all_.calibration["members_0"]
    assert len(members) == round(0.1 * 12 * 64) and len(patches) == 12 * 64
    chosen = torch.cdist(patches, members).amin(1).max()
    lot = torch.randperm(len(patches), generator=torch.Generator().manual_seed(1))
    drawn = torch.cdist(patches, patches[lot[: len(members)]]).amin(1).max()
    assert chosen < 0.8 * drawn


def test_distances_are_those_of_the_features():
    """No direction is whitened: with all components, distances are as far as unit and layers go."""
    training = images(12)
    layers = tiny_pyramid()(training)
    channels = [layer.shape[1] for layer in layers]
    detector = patchcore([training], components=sum(channels))
    described = describe(layers).flatten(2).transpose(1, 2).flatten(0, 1)
    parts = described.split(channels, 1)
    scaled = [part / part.var(0, correction=0).sum().sqrt() for part in parts]
    points = detector.points(training).flatten(2).transpose(1, 2).flatten(0, 1)
    ratio = torch.pdist(points[:200]) / torch.pdist(torch.cat(scaled, 1)[:200])
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=0.03, atol=0)


def test_fewer_patches_to_choose_from_are_said():
    with pytest.warns(UserWarning, match=r"among 25 of each image's 64 patches, at random"):
        detector = patchcore(most_patches=300)
    assert len(detector.calibration["members_0"]) == round(0.1 * 12 * 25)


def test_places_add_to_the_distance_between_patches():
    """Opposite borders are ``position`` times the length of a typical patch, sqrt(K), apart."""
    detector = patchcore(position=2.0)
    points = torch.randn(1, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    placed = detector.placed(points)[0].T.reshape(4, 3, -1)
    for one, other in (((0, 0), (3, 0)), ((1, 0), (1, 2)), ((0, 2), (2, 1))):
        row, column = (one[0] - other[0]) / 3, (one[1] - other[1]) / 2
        looks = (points[0, :, *one] - points[0, :, *other]).square().sum()
        expected = looks + 2.0**2 * 5 * (row**2 + column**2)
        found = (placed[one] - placed[other]).square().sum()
        torch.testing.assert_close(found, expected)


def test_reweighting_lowers_scores_where_the_memory_is_dense():
    plain, weighted = patchcore(), patchcore(reweighting=3)
    test = images(2, seed=1)
    with torch.no_grad():
        first, second = (
            d.detect(test, torch.zeros(2).long()).parts["patch"] for d in (plain, weighted)
        )
    assert (second < first).all() and (second > 0.2 * first).all()
    with pytest.raises(ValueError, match=r"model.reweighting must be 0 or at least 2"):
        patchcore(reweighting=1)
    with pytest.raises(ValueError, match=r"memory has 2 patches, .* looks at 3: raise model.share"):
        patchcore(share=0.003, reweighting=3)


def test_reweighting_looks_around_in_the_memory_of_the_category():
    detector = patchcore([images(12), images(10, brightness=0.7)], reweighting=3)
    for number in range(2):
        members = detector.calibration[f"members_{number}"]
        search = NearestNeighbors(n_neighbors=3).fit(members.numpy())
        expected = torch.from_numpy(search.kneighbors(members.numpy())[1])
        found = detector.calibration[f"around_{number}"]
        assert (found.sort(1).values == expected.sort(1).values).float().mean() > 0.98  # but ties


def test_images_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match=r"all 12 training images look the same"):
        patchcore([torch.full((12, 3, 16, 16), 0.2)])


def test_categories_have_memories_of_their_own():
    detector = patchcore([images(12), images(10, brightness=0.7)])
    test = images(2, brightness=0.7, seed=1)
    with torch.no_grad():
        as_bottle, as_screw, unknown = (
            detector.detect(test, torch.full((2,), category)).score for category in (0, 1, -1)
        )
    assert (as_bottle > as_screw).all()
    assert torch.equal(unknown, as_screw)


def test_a_choice_without_room_is_refused_before_training(monkeypatch):
    detector = patchcore()
    monkeypatch.setattr("lightning_ad.speed.allocation._available_memory", lambda: 10**4)
    with pytest.raises(MemoryError, match=r"768 patches need .* lower model.most_patches"):
        detector.check_grid(8, 8)


def test_patches_of_all_categories_find_room_together(monkeypatch):
    detector = patchcore()
    detector.training_images = {str(number): 12 for number in range(1000)}
    halves = 1000 * 12 * 64 * detector.components * 2
    monkeypatch.setattr("lightning_ad.speed.allocation._available_memory", lambda: halves)
    with pytest.raises(MemoryError, match=r"768000 patches need .* lower model.most_patches"):
        detector.check_grid(8, 8)
