"""The metrics as state: any division of the images over batches and processes gives the same."""

import math
import pickle
import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor, distributed

from lightning_ad.metrics import DetectionMetrics, ImageMetrics, PixelMetrics, evaluate_maps
from lightning_ad.metrics.counts import MAX_BINS

CATEGORIES = ["bottle", "v1.0 cable", "only normal"]
IMAGES, SIZE = 31, 96  # more pixels in a category than bins


def batches(size: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    category = torch.randint(0, 2, (IMAGES,), generator=generator)
    category[:3] = 2
    mask = torch.zeros(IMAGES, 1, SIZE, SIZE, dtype=torch.uint8)
    mask[3::2, :, 10:30, 40:55] = mask[4::4, :, 60:62, 3:90] = 1
    anomaly_map = torch.randn(mask.shape, generator=generator) + 1.5 * mask
    label = mask.flatten(1).amax(1)
    whole = {
        "anomaly_map": anomaly_map,
        "mask": mask,
        "score": anomaly_map.flatten(1).amax(1),
        "label": label,
        "category": category,
    }
    return [
        {name: values[start : start + size] for name, values in whole.items()}
        for start in range(0, IMAGES, size)
    ]


def compute(parts: list[dict[str, Tensor]], exact: bool = False) -> dict[str, float]:
    metrics = DetectionMetrics(CATEGORIES, exact=exact)
    for part in parts:
        metrics.update(**part)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return metrics.compute()


def same(left: dict[str, float], right: dict[str, float]) -> bool:
    return left.keys() == right.keys() and all(
        left[key] == right[key] or (math.isnan(left[key]) and math.isnan(right[key]))
        for key in left
    )


@pytest.mark.parametrize("exact", [False, True])
def test_batches_and_their_order_leave_no_trace(exact):
    expected = compute(batches(IMAGES), exact)
    assert same(compute(batches(4), exact), expected)
    assert same(compute(batches(1)[::-1], exact), expected)


def test_each_category_equals_evaluate_maps_and_the_mean_leaves_nan_out():
    whole = batches(IMAGES)[0]
    results = compute([whole])
    for index, category in enumerate(CATEGORIES[:2]):
        chosen = whole["category"] == index
        maps, masks = whole["anomaly_map"][chosen, 0], whole["mask"][chosen, 0]
        for name, value in evaluate_maps(maps, masks).items():
            assert results[f"{category}/{name}"] == value
    assert math.isnan(results["only normal/pixel_aupro"])
    pair = [results[f"{category}/image_auroc"] for category in CATEGORIES[:2]]
    assert results["mean/image_auroc"] == pytest.approx(sum(pair) / 2, abs=1e-15)


def test_undefined_metrics_warn_once_and_name_the_category():
    metrics = DetectionMetrics(CATEGORIES)
    for part in batches(8):
        metrics.update(**part)
    with pytest.warns(UserWarning, match="only normal/image_auroc") as caught:
        metrics.compute()
    assert len(caught) == 1


def test_without_masks_there_are_image_metrics_only():
    metrics = DetectionMetrics(CATEGORIES[:2], pixel=False)
    part = {name: values[3:] for name, values in batches(IMAGES)[0].items()}
    metrics.update(**part)
    assert not any("pixel" in key for key in metrics.compute())


def test_images_with_scores_that_are_not_finite_are_named():
    part = batches(4)[0]
    part["anomaly_map"][2, 0, 5, 5] = float("nan")
    with pytest.raises(ValueError, match=r"third\.png"):
        DetectionMetrics(CATEGORIES).update(**part, paths=["a", "b", "third.png", "d"])


def test_metrics_used_alone_refuse_what_is_not_finite():
    maps = torch.zeros(3, 4, 4)
    maps[1, 2, 2] = math.nan
    with pytest.raises(ValueError, match="map 1 of the batch"):
        PixelMetrics().update(maps, torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match="score 0 of the batch"):
        ImageMetrics().update(torch.tensor([math.inf, 0.0]), torch.tensor([0, 1]))


def test_masks_of_another_size_are_refused():
    part = batches(4)[0]
    part["mask"] = part["mask"][:, :, :-1]
    with pytest.raises(ValueError, match="masks of the maps' shape"):
        DetectionMetrics(CATEGORIES).update(**part)


def test_state_stays_bounded():
    metric = PixelMetrics()
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        maps = torch.randn(4, 256, 256, generator=generator).exp()
        metric.update(maps, maps > 9)
        assert sum(map(len, metric.tables)) <= 2 * MAX_BINS
    assert len(metric.merged()) <= MAX_BINS
    metric.reset()
    assert sum(map(len, metric.tables)) == 0


def _evaluate_share(rank: int, rendezvous: Path) -> None:
    distributed.init_process_group("gloo", init_method=rendezvous.as_uri(), rank=rank, world_size=2)
    # The second process gets one batch of eight, and nothing at all of the last category.
    share = batches(4)[7:] if rank else batches(4)[:7]
    results = [compute(share, exact) for exact in (False, True)]
    rendezvous.with_name(f"{rank}.pickle").write_bytes(pickle.dumps(results))
    distributed.destroy_process_group()


@pytest.mark.whole
def test_two_processes_with_uneven_shares_agree_to_the_last_bit(tmp_path):
    mp.spawn(partial(_evaluate_share, rendezvous=tmp_path / "rendezvous"), nprocs=2)
    for rank in range(2):
        bounded, exact = pickle.loads((tmp_path / f"{rank}.pickle").read_bytes())
        assert same(bounded, compute(batches(4)))
        assert same(exact, compute(batches(4), exact=True))


@pytest.mark.parametrize("index", [-1, 3])
def test_an_image_of_no_category_is_counted_for_none(index):
    whole = batches(IMAGES)[0]
    whole["category"][5] = index
    metrics = DetectionMetrics(CATEGORIES)
    with pytest.raises(ValueError, match=rf"1 image.*number 5 .*index {index}.*only normal"):
        metrics.update(**whole)
    assert all(len(part.merged()) == 0 for part in metrics.pixel)
