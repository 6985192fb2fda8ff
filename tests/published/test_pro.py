"""The published PRO against the loop of published codes, and what is wrong with it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightning_ad.metrics import evaluate_maps
from lightning_ad.published import PublishedPRO, pro_200_thresholds
from tests import reference
from tests.metrics.test_evaluate_maps import rectangles


@pytest.mark.parametrize("size", [24, 48])
def test_value_is_that_of_the_published_loop(size):
    maps, masks = rectangles(11, images=8, size=size)
    expected = reference.pro_200_thresholds(maps, masks)
    assert pro_200_thresholds(maps, masks) == pytest.approx(expected, abs=1e-6)


def test_it_differs_from_the_exact_value_and_changes_with_the_scale():
    maps, masks = rectangles(11, images=8, size=48)
    maps, rescaled = np.exp(maps), np.exp(4 * maps)
    published = pro_200_thresholds(maps, masks)
    assert abs(pro_200_thresholds(rescaled, masks) - published) > 0.1
    exact = evaluate_maps(maps, masks)["pixel_aupro"]
    assert abs(exact - published) > 0.001
    assert evaluate_maps(rescaled, masks)["pixel_aupro"] == pytest.approx(exact, abs=1e-4)


def test_without_a_defect_it_is_undefined():
    assert np.isnan(pro_200_thresholds(np.random.rand(2, 8, 8), np.zeros((2, 8, 8))))
    assert np.isnan(pro_200_thresholds(np.zeros((2, 8, 8)), np.ones((2, 8, 8))))


def test_callback_logs_each_category_and_the_mean():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(6, 1, 16, 16, generator=generator).half().float()
    masks = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    masks[1:, :, 3:9, 5:11] = 1
    category = torch.tensor([0, 0, 1, 1, 0, 1])
    trainer = SimpleNamespace(datamodule=SimpleNamespace(categories=["bottle", "grid"]))
    logged = {}
    module = SimpleNamespace(log_dict=lambda values, **_: logged.update(values))
    callback = PublishedPRO()
    callback.on_test_start(trainer, module)
    for part in (slice(0, 4), slice(4, 6)):
        batch = {"category": category[part], "mask": masks[part]}
        callback.on_test_batch_end(
            trainer, module, SimpleNamespace(anomaly_map=maps[part]), batch, 0
        )
    callback.on_test_epoch_end(trainer, module)
    bottle, grid = (
        pro_200_thresholds(maps[category == i, 0], masks[category == i, 0]) for i in (0, 1)
    )
    assert logged == pytest.approx(
        {
            "test/bottle/pixel_pro_200": bottle,
            "test/grid/pixel_pro_200": grid,
            "test/mean/pixel_pro_200": (bottle + grid) / 2,
        }
    )
