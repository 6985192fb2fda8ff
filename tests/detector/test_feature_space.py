"""Patches drawn from training images lie anywhere in them, and where an image's name says."""

import numpy as np
import torch

from lightning_ad.detector.feature_space import DrawnPatches


def places(paths, per_image):
    """Which of 64 patches are drawn (N, n): each patch is its own number."""
    drawn = DrawnPatches(lambda image: torch.arange(64.0).expand(len(image), 1, 64), per_image)
    for start in range(0, len(paths), 30):
        part = paths[start : start + 30]
        drawn.observe(torch.zeros(len(part), 3, 8, 8), torch.zeros(len(part)).long(), part)
    drawn.finish()
    return drawn.rows[..., 0].long().numpy()


def test_patches_come_from_everywhere_and_elsewhere_in_each_image():
    found = places([f"{number:03}.png" for number in range(200)], 16)
    assert found.shape == (200, 16)
    assert all(len(set(own)) == 16 for own in found.tolist())  # none twice
    assert len({frozenset(own) for own in found.tolist()}) == 200
    drawn = np.bincount(found.ravel(), minlength=64)
    np.testing.assert_allclose(drawn, 200 * 16 / 64, rtol=0.5)  # four deviations


def test_the_same_patches_are_drawn_wherever_the_images_lie():
    here, there = (places([f"{root}/{i}.png" for i in range(5)], 16) for root in ("a", "b/c"))
    np.testing.assert_array_equal(here, there)


def test_all_patches_are_taken_in_order_if_there_are_no_more():
    np.testing.assert_array_equal(places(["0.png", "1.png"], 64), np.tile(np.arange(64), (2, 1)))
