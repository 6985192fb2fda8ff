"""Curves as drawn, against scikit-learn's and a slow reference; a few points stand for them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve, roc_curve

from lightning_ad.metrics import DetectionMetrics, points
from lightning_ad.metrics.aupro import aupro
from tests.reference import aupro as slow_aupro


def counts(score, label):
    values = np.unique(score)
    columns = [[np.sum((score == v) & (label == kind)) for v in values] for kind in (0, 1)]
    return [torch.tensor(column) for column in columns]


@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 80)
    return np.round(rng.normal(size=80) + label, 1), label  # with ties


def test_curves_are_scikit_learns(scored):
    normal, defective = counts(*scored)
    fpr, tpr, _ = roc_curve(scored[1], scored[0], drop_intermediate=False)
    np.testing.assert_allclose(points.roc(normal, defective), np.stack([fpr, tpr], 1))
    precision, recall, _ = precision_recall_curve(scored[1], scored[0])
    ours = points.precision_recall(normal, defective).flip(0)
    np.testing.assert_allclose(ours, np.stack([recall, precision], 1)[:-1])


def test_pro_has_the_area_of_the_metric_and_ends_at_its_limit():
    rng = np.random.default_rng(1)
    normal, overlap = (torch.from_numpy(rng.integers(0, 50, 400)) for _ in range(2))
    x, y = points.pro(normal, overlap, 0.3).T.numpy()
    assert x[-1] == 0.3
    assert np.trapezoid(y, x) / 0.3 == pytest.approx(aupro(normal, overlap, 0.3), abs=1e-12)


def test_few_points_stand_for_many():
    x = torch.linspace(0, 1, 100_000, dtype=torch.double)
    curve = torch.stack([x, (1 - (1 - x) ** 2).sqrt()], dim=1)  # a quarter of a circle
    few = np.array(points.thinned(curve))
    assert len(few) <= points.POINTS
    assert few[0].tolist() == [0, 0] and few[-1].tolist() == [1, 1]
    assert np.abs(np.diff(few, axis=0)).sum(1).max() < 4 / points.POINTS
    assert np.trapezoid(few[:, 1], few[:, 0]) == pytest.approx(np.pi / 4, abs=1e-4)


@pytest.mark.parametrize("label", [0, 1])
def test_what_is_undefined_has_no_points(label):
    only = [torch.tensor([3, 2]), torch.tensor([0, 0])]
    normal, defective = only if label == 0 else only[::-1]
    assert len(points.roc(normal, defective)) == 0
    assert len(points.pro(normal, defective, 0.3)) == 0
    assert len(points.precision_recall(normal, defective)) == 2 * label


def test_a_test_gives_the_curves_of_each_category():
    rng = torch.Generator().manual_seed(0)
    metrics = DetectionMetrics(["a", "b"])
    mask = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    mask[3:, :, 2:5, 2:5] = 1
    maps = torch.rand(6, 1, 8, 8, generator=rng) + mask
    label, category = mask.flatten(1).any(1).long(), torch.tensor([0, 1, 0, 1, 0, 1])
    metrics.update(maps, mask, maps.flatten(1).amax(1), label, category)
    results, curves = metrics.compute(), metrics.curves()
    assert list(curves) == ["a", "b"]
    for name, found in curves.items():
        assert list(found) == ["image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro"]
        x, y = np.array(found["pixel_roc"]).T
        assert np.trapezoid(y, x) == pytest.approx(results[f"{name}/pixel_auroc"], abs=1e-9)
    chosen = (category == 0).numpy()
    x, y = np.array(curves["a"]["pro"]).T
    slow = slow_aupro(maps[chosen, 0].numpy(), mask[chosen, 0].numpy().astype(bool), 0.3)
    assert np.trapezoid(y, x) / 0.3 == pytest.approx(slow, abs=1e-6)
