"""Distances against the numbers recorded from the authors' code."""

import numpy as np
import pytest
import torch

from lightning_ad.maths import maps


@pytest.fixture
def golden(shared):
    return {k: torch.from_numpy(v) for k, v in np.load(shared / "golden/ddad_maps.npz").items()}


def test_pixel_distance_is_ddads(golden):
    distance = maps.pixel_distance(golden["reconstruction"], golden["target"])
    torch.testing.assert_close(distance, golden["pixel_distance"], rtol=1e-4, atol=1e-6)


def test_feature_distance_is_ddads(golden):
    distance = maps.feature_distance(
        [golden["f2"], golden["f3"]], [golden["g2"], golden["g3"]], (64, 64), pool=3
    )
    torch.testing.assert_close(distance, golden["feature_distance"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("v", [1, 7])
def test_blurred_fusion_is_ddads(golden, v):
    pixel, feature = golden["pixel_distance"], golden["feature_distance"]
    fused = feature + v * feature.max() / pixel.max() * pixel
    blurred = maps.gaussian_blur(fused, 4.0)
    torch.testing.assert_close(blurred, golden[f"heat_map_v{v}"], rtol=1e-4, atol=1e-5)


def test_distance_of_an_image_to_itself_is_zero():
    image, features = torch.randn(2, 3, 16, 16), [torch.randn(2, 8, 4, 4)]
    assert maps.pixel_distance(image, image).abs().max() == 0
    assert maps.feature_distance(features, features, (16, 16), 3).abs().max() < 1e-6


def test_blur_keeps_constants_and_small_images():
    constant = torch.full((1, 2, 8, 8), 0.3)
    torch.testing.assert_close(maps.gaussian_blur(constant, 4.0), constant)
    noisy = torch.randn(1, 1, 8, 8)
    assert torch.equal(maps.gaussian_blur(noisy, 0), noisy)
