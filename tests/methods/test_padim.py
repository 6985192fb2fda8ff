"""PaDiM from images to maps against a covariance that NumPy inverts, and its promises."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_ad.maths import maps
from lightning_ad.methods import PaDiM
from tests.methods.tiny_features import fitted, images

padim = partial(fitted, PaDiM)


def distances(detector, training, test):
    """Of test images (B, P) to the training images of one category."""
    with torch.no_grad():
        known = detector.points(training).flatten(2).double().numpy()  # (N, K, P)
        points = detector.points(test).flatten(2).double().numpy()
    expected = np.empty((len(test), 64))
    for place in range(64):
        own = known[:, :, place]
        inverse = np.linalg.inv(np.cov(own.T, bias=True) + 0.05 * np.eye(5))
        residual = points[:, :, place] - own.mean(0)
        expected[:, place] = np.sqrt(np.einsum("nk,kl,nl->n", residual, inverse, residual))
    return torch.from_numpy(expected).float()


def test_a_map_is_the_distance_to_the_training_images_at_each_place():
    training, test = images(12), images(2, seed=1)
    detector = padim([training])
    with torch.no_grad():
        found = detector.detect(test, torch.zeros(2).long())
    grid = distances(detector, training, test).view(2, 1, 8, 8)
    blurred = maps.gaussian_blur(
        F.interpolate(grid, (16, 16), mode="bilinear", align_corners=False), 1.0
    )
    torch.testing.assert_close(found.anomaly_map, blurred, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.score, blurred.amax((1, 2, 3)), rtol=1e-3, atol=1e-3)
    assert found.reconstruction is None


def test_points_of_training_images_are_white():
    detector, training = padim([images(60)]), images(60)
    with torch.no_grad():
        points = detector.points(training).movedim(1, -1).flatten(0, 2)
    covariance = torch.from_numpy(np.cov(points.T.numpy())).float()
    torch.testing.assert_close(covariance, torch.eye(5), rtol=0.1, atol=0.1)


def test_categories_have_gaussians_of_their_own_and_unknown_images_the_likelier_one():
    detector = padim([images(12), images(10, brightness=0.7)])
    test = images(2, brightness=0.7, seed=1)
    with torch.no_grad():
        as_bottle, as_screw, unknown = (
            detector.detect(test, torch.full((2,), category)).score for category in (0, 1, -1)
        )
    assert (as_bottle > as_screw).all()
    assert torch.equal(unknown, as_screw)


def test_each_category_has_a_mean_and_a_covariance():
    by_category = [images(12), images(10, brightness=0.7)]
    detector, test = padim(by_category), images(2, seed=1)
    for number, training in enumerate(by_category):
        with torch.no_grad():
            found = detector.deviation(detector.points(test), number)
        expected = distances(detector, training, test)
        torch.testing.assert_close(found.flatten(1), expected, rtol=1e-3, atol=1e-3)


def test_another_size_of_image_is_refused():
    with pytest.raises(ValueError, match=r"learned 64 places .* 16 x 16: set data.image_size"):
        padim().detect(images(1, size=32), torch.tensor([0]))


def test_fewer_images_than_components_are_said():
    with pytest.warns(UserWarning, match=r"fewer training images .*'bottle': 4"):
        padim([images(4)])
    with pytest.raises(ValueError, match=r"model.ridge must be above 0"):
        padim(ridge=0.0)


def test_covariances_without_room_are_refused_before_training(monkeypatch):
    detector = padim()
    monkeypatch.setattr("lightning_ad.speed.allocation._available_memory", lambda: 10**5)
    with pytest.raises(MemoryError, match=r"32 x 32 places need .* GB .* lower model.components"):
        detector.check_grid(32, 32)
    detector.check_grid(8, 8)  # 6 kB
