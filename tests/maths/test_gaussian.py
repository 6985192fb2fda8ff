"""Distances to a Gaussian at each place against covariances that NumPy inverts."""

import numpy as np
import torch

from lightning_ad.maths.gaussian import mahalanobis, no_moments, whitener

RIDGE = 0.05
PLACES, DIMENSIONS = 3, 4


def training_points(count=40):
    """Points (count, P, K), correlated in their own way at each place."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(PLACES, DIMENSIONS, DIMENSIONS, generator=generator)
    found = torch.randn(count, PLACES, DIMENSIONS, generator=generator)
    return torch.einsum("npk,pkl->npl", found, mixing) + torch.arange(PLACES)[:, None]


def fitted(points, batch):
    moments = no_moments(PLACES, DIMENSIONS)
    for part in points.split(batch):
        moments.add(part)
    return whitener(moments, RIDGE)


def test_the_distance_is_mahalanobis_of_the_place():
    training = training_points()
    test = torch.randn(5, PLACES, DIMENSIONS, generator=torch.Generator().manual_seed(1))
    found = mahalanobis(test, *fitted(training, 16))
    for place in range(PLACES):
        own = training[:, place].double().numpy()
        inverse = np.linalg.inv(np.cov(own.T, bias=True) + RIDGE * np.eye(DIMENSIONS))
        residual = test[:, place].double().numpy() - own.mean(0)
        expected = np.sqrt(np.einsum("nk,kl,nl->n", residual, inverse, residual))
        np.testing.assert_allclose(found[:, place].numpy(), expected, rtol=1e-3)


def test_one_image_of_normal_ones_has_a_finite_distance():
    mean, whiten = fitted(training_points(1), 1)
    torch.testing.assert_close(mean, training_points(1)[0])
    distance = mahalanobis(training_points(1) + 1, mean, whiten)
    expected = (DIMENSIONS / RIDGE) ** 0.5
    torch.testing.assert_close(distance, torch.full((1, PLACES), expected), rtol=1e-3, atol=1e-3)


def test_batches_make_no_difference():
    whole, parts = fitted(training_points(), 40), fitted(training_points(), 7)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
