"""Distances against the numbers recorded from the authors' code."""

import pytest
import torch

from lightning_ad.maths import maps
from tests.recordings import every_fourth, recorded


def ddads_distances():
    """DDAD's recorded case, and our pixel and feature distance in it."""
    case = recorded("ddad_maps")
    pyramids = [[case[f"{letter}{layer}"] for layer in (2, 3)] for letter in "fg"]
    pixel = maps.pixel_distance(case["reconstruction"], case["target"])
    return case, pixel, maps.feature_distance(*pyramids, (64, 64), pool=3)


def test_distances_are_ddads():
    case, pixel, feature = ddads_distances()
    for name, ours in (("pixel", pixel), ("feature", feature)):
        expected = case[f"{name}_distance"]
        torch.testing.assert_close(every_fourth(ours), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("v", [1, 7])
def test_blurred_fusion_is_ddads(v):
    case, pixel, feature = ddads_distances()
    fused = feature + v * feature.max() / pixel.max() * pixel
    blurred = every_fourth(maps.gaussian_blur(fused, 4.0))
    torch.testing.assert_close(blurred, case[f"heat_map_v{v}"], rtol=1e-4, atol=1e-5)


def test_distance_of_an_image_to_itself_is_zero():
    image, features = torch.randn(2, 3, 16, 16), [torch.randn(2, 8, 4, 4)]
    assert maps.pixel_distance(image, image).abs().max() == 0
    assert maps.feature_distance(features, features, (16, 16), 3).abs().max() < 1e-6


def test_blur_keeps_constants_and_small_images():
    constant = torch.full((1, 2, 8, 8), 0.3)
    torch.testing.assert_close(maps.gaussian_blur(constant, 4.0), constant)
    noisy = torch.randn(1, 1, 8, 8)
    assert torch.equal(maps.gaussian_blur(noisy, 0), noisy)
