"""Maps relative to those of normal images, against statistics written out by hand."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.normals import learn_normals, relative_to_normals
from tests.methods.tiny import Brightness

SIDE = 32
CATEGORY = torch.tensor([0, 1, 0, 1, 0, 1, 0])


def maps_of(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ground = torch.linspace(0, 3, SIDE).expand(1, SIDE, SIDE)
    return ground + torch.rand(count, 1, SIDE, SIDE, generator=generator) * (1 + ground)


def batches_of(values, category, sizes=(3, 4)):
    paths = [str(i) for i in range(len(values))]
    starts = np.cumsum([0, *sizes])
    return [
        {"path": paths[a:b], "category": category[a:b], "pixel": values[a:b].clone()}
        for a, b in pairwise(starts)
    ]


def by_hand(others, one):
    """What remains of a map, from the definition in the module's docstring."""
    others = np.asarray(others, np.float64)[:, 0]
    variance = others.var(0)
    mean = gaussian_filter(others.mean(0), SIDE / 16, mode="mirror")
    deviation = np.sqrt(gaussian_filter(variance, SIDE / 16, mode="mirror"))
    z = (np.asarray(one, np.float64)[0] - mean) / (deviation + 0.1 * np.sqrt(variance.mean()))
    return np.log1p(np.exp(z))


def test_new_images_are_seen_relative_to_all_and_held_out_ones_to_all_others():
    values, calibration = maps_of(7), Calibration()
    batches = batches_of(values, CATEGORY)
    learn_normals(calibration, batches, categories=2)
    seen = torch.cat([rows["pixel"] for rows in batches])
    for i in range(7):
        others = [j for j in range(7) if CATEGORY[j] == CATEGORY[i] and j != i]
        np.testing.assert_allclose(seen[i, 0], by_hand(values[others], values[i]), atol=2e-4)
    new = maps_of(3, seed=9)
    relative = relative_to_normals(calibration, {"pixel": new}, torch.tensor([0, 1, -1]))["pixel"]
    for i, group in enumerate((CATEGORY == 0, CATEGORY == 1, CATEGORY >= 0)):
        np.testing.assert_allclose(relative[i, 0], by_hand(values[group], new[i]), atol=2e-4)


def test_batches_do_not_matter():
    values, found = maps_of(7), []
    for sizes in ((7,), (1, 2, 4)):
        calibration = Calibration()
        learn_normals(calibration, batches_of(values, CATEGORY, sizes), categories=2)
        found.append(calibration["pixel_deviation"])
    torch.testing.assert_close(*found)


def test_what_was_not_learned_stays_as_it_is():
    parts = {"pixel": maps_of(2)}
    assert (
        relative_to_normals(Calibration(), parts, torch.tensor([0, 0]))["pixel"] is parts["pixel"]
    )


def test_too_few_images_are_named():
    with pytest.raises(ValueError, match=r"model\.standardize needs 3 or more.*val_fraction"):
        learn_normals(Calibration(), batches_of(maps_of(5), CATEGORY[:5], (5,)), categories=2)


def test_a_defect_in_a_quiet_place_stands_out_beside_a_restless_one():
    values, calibration = maps_of(20), Calibration()
    learn_normals(calibration, batches_of(values, torch.zeros(20).long(), (20,)), categories=1)
    defective = maps_of(1, seed=3)
    defective[0, 0, 10:14, 2:6] += 2  # less than what is normal on the right
    assert defective.argmax() % SIDE > SIDE / 2
    found = relative_to_normals(calibration, {"pixel": defective}, torch.tensor([0]))["pixel"]
    row, column = divmod(int(found.argmax()), SIDE)
    assert 10 <= row < 14 and 2 <= column < 6


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.01, 10), (0.25, 256)])
def test_an_image_scores_by_the_top_of_its_map(share, count):
    values = maps_of(2)
    expected = np.sort(values.flatten(1).numpy(), axis=1)[:, -count:].mean(1)
    found = Brightness(top_share=share).score(values, {})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"model\.top_share"):
        Brightness(top_share=share)
