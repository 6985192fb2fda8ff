import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_ad.metrics import evaluate_maps
from tests.metrics.random_cases import MOST, expected_metrics, random_case

NAMES = [
    *("image_auroc", "image_auprc", "image_f1max"),
    *("pixel_auroc", "pixel_auprc", "pixel_f1max", "pixel_aupro"),
]


def rectangles(seed: int, images: int = 6, size: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Noise that is higher inside a few rectangles, some of which touch at a corner only."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, size, size), bool)
    for mask in masks[1:]:
        for _ in range(rng.integers(1, 4)):
            top, left, height, width = rng.integers(1, size // 2, 4)
            mask[top : top + height, left : left + width] = True
        mask[0, 0] = mask[1, 1] = True  # one region of two pixels, not two regions
    maps = rng.standard_normal(masks.shape) + 0.8 * masks
    return maps.astype(np.float32), masks


@pytest.mark.parametrize("fpr_limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_agrees_with_independent_references(fpr_limit, rounded, exact):
    maps, masks = rectangles(1)
    if rounded:  # many ties, also between normal and defective pixels
        maps = np.round(maps * 3) / 3
    results = evaluate_maps(maps, masks, fpr_limit=fpr_limit, exact=exact)
    assert list(results) == NAMES
    expected = expected_metrics(maps, masks, maps.max((1, 2)), masks.any((1, 2)), fpr_limit)
    assert results == pytest.approx(expected, abs=1e-6)


def test_random_cases_agree_with_independent_references():
    """The first of those that `python -m tests.metrics.random_cases` tries."""
    assert max(max(random_case(seed).values()) for seed in range(20)) < MOST


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


HARD = {
    "plain": lambda x: x,
    "negative": lambda x: x - 50,
    "crowded": lambda x: 0.5 + 1e-4 * sigmoid(x),
    "crowded beside zero": lambda x: np.where(x < 0, 0, 0.5 + 1e-4 * sigmoid(x)),
    "saturated": lambda x: sigmoid(4 * x),
    "twenty octaves": lambda x: np.exp(4 * x),
    "denormal": lambda x: sigmoid(x) * 1e-39,
    "outliers": lambda x: np.where(x > 4, 1e30, 0.7 + 1e-3 * x),
}


@pytest.mark.parametrize("name", HARD)
def test_bounded_form_equals_exact_form_on_hard_scores(name):
    rng = np.random.default_rng(2)
    masks = np.zeros((24, 128, 128), bool)  # 3 times as many pixels as bins
    masks[::2, 20:50, 30:40] = masks[::4, 90:95, 5:100] = True
    maps = rng.standard_normal(masks.shape) + 1.5 * masks
    scores = HARD[name](maps).astype(np.float32)
    bounded, exact = (evaluate_maps(scores, masks, exact=exact) for exact in (False, True))
    assert bounded == pytest.approx(exact, abs=1e-4)
    truth = masks.ravel()
    assert bounded["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores.ravel()), abs=1e-4)
    expected = average_precision_score(truth, scores.ravel())
    assert bounded["pixel_auprc"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rescale", [sigmoid, np.exp, lambda x: x**3, lambda x: 100 * x + 7])
def test_monotone_rescaling_changes_nothing(rescale):
    maps, masks = rectangles(3, images=8, size=48)
    rescaled = rescale(maps.astype(np.float64))
    assert evaluate_maps(rescaled, masks) == pytest.approx(evaluate_maps(maps, masks), abs=1e-4)


def test_perfect_and_inverted_scores_outside_the_unit_interval():
    _, masks = rectangles(4)
    perfect = evaluate_maps(np.where(masks, 100.0, -30.0), masks)
    assert perfect == pytest.approx(dict.fromkeys(NAMES, 1.0), abs=1e-12)
    inverted = evaluate_maps(np.where(masks, -30.0, 100.0), masks)
    assert inverted["pixel_auroc"] == inverted["pixel_aupro"] == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, torch.float32])
@pytest.mark.parametrize("mask_type", [bool, np.uint8, np.int64, np.float32])
def test_accepts_arrays_and_tensors_of_any_type(dtype, mask_type):
    maps, masks = rectangles(5)
    expected = evaluate_maps(maps.astype(np.float16), masks, exact=True)
    given = masks.astype(mask_type) * mask_type(1 if mask_type in (bool, np.float32) else 200)
    maps = maps.astype(np.float16)
    values = torch.from_numpy(maps).to(dtype) if dtype is torch.float32 else maps.astype(dtype)
    truth = torch.from_numpy(given) if dtype is torch.float32 else given
    assert evaluate_maps(values, truth, exact=True) == expected


@pytest.mark.parametrize(
    "relaid",
    [
        lambda maps: maps[:, ::-1, ::-1][:, ::-1, ::-1],
        lambda maps: maps.astype(">f4"),
        lambda maps: maps.astype(np.longdouble),
        lambda maps: maps.transpose(1, 2, 0).copy().transpose(2, 0, 1),
        lambda maps: maps.tolist(),
    ],
    ids=["negative strides", "big endian", "long double", "transposed", "lists"],
)
def test_memory_layout_does_not_matter(relaid):
    maps, masks = rectangles(9)
    assert evaluate_maps(relaid(maps), masks) == evaluate_maps(maps, masks)


def test_read_only_arrays_are_read_without_a_warning():
    maps, masks = rectangles(9)
    maps.flags.writeable = masks.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_maps(maps, masks)


@pytest.mark.parametrize("maps", [[[[1.0]], [[1.0, 2.0]]], np.zeros((2, 8, 8), complex)])
def test_what_is_no_array_of_numbers_is_named(maps):
    with pytest.raises(TypeError, match="anomaly_maps: expected"):
        evaluate_maps(maps, np.zeros((2, 8, 8), bool))


def test_wholly_defective_images_are_counted_without_a_warning():
    maps, masks = rectangles(10)
    masks[1] = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 0 <= evaluate_maps(maps, masks)["pixel_aupro"] <= 1


def test_image_scores_and_labels_can_be_given():
    maps, masks = rectangles(6)
    labels = np.array([0, 1, 0, 1, 0, 1])
    scores = np.array([0.1, 0.9, 0.8, 0.7, 0.2, 0.6])
    results = evaluate_maps(maps, masks, image_scores=scores, labels=labels)
    assert results["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert results["image_auprc"] == pytest.approx(average_precision_score(labels, scores))


def test_undefined_metrics_are_nan_with_one_warning():
    maps, masks = rectangles(7)
    with pytest.warns(UserWarning, match="undefined") as caught:
        results = evaluate_maps(maps, np.zeros_like(masks))
    assert len(caught) == 1
    assert all(np.isnan(value) for value in results.values())
    with pytest.warns(UserWarning, match="image_auroc") as caught:
        results = evaluate_maps(maps[1:], masks[1:])
    assert np.isnan(results["image_auroc"]) and len(caught) == 1
    assert 0.5 < results["pixel_auroc"] < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_maps(maps, masks)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_name_the_image(value):
    maps, masks = rectangles(8)
    maps[4, 3, 2] = value
    with pytest.raises(ValueError, match=r"anomaly_maps\[4\]"):
        evaluate_maps(maps, masks)
    scores = np.arange(6.0)
    scores[2] = value
    with pytest.raises(ValueError, match=r"image_scores\[2\]"):
        evaluate_maps(np.zeros_like(maps), masks, image_scores=scores)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"anomaly_maps": np.zeros((2, 1, 8, 8))}, "anomaly_maps: expected .*N, H, W"),
        ({"anomaly_maps": np.zeros((0, 8, 8)), "masks": np.zeros((0, 8, 8))}, "non-empty"),
        ({"masks": np.zeros((2, 4, 8))}, r"masks: expected .*\(2, 8, 8\), got \(2, 4, 8\)"),
        ({"masks": np.full((2, 8, 8), 0.3)}, "masks: .*0 or 1"),
        ({"image_scores": np.zeros(3)}, "image_scores: expected one value per map"),
        ({"labels": np.zeros((2, 1))}, "labels: expected one value per map"),
        ({"labels": np.array([-1, 1])}, r"labels: expected 0 .* or 1 .*got \[-1, 1\]"),
        ({"fpr_limit": 0.0}, "fpr_limit"),
        ({"fpr_limit": 1.5}, "fpr_limit"),
    ],
)
def test_arguments_that_do_not_fit_are_named(changes, message):
    arguments = {"anomaly_maps": np.zeros((2, 8, 8)), "masks": np.zeros((2, 8, 8), bool)}
    with pytest.raises(ValueError, match=message):
        evaluate_maps(**(arguments | changes))


def spread(octaves: float, band: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores over many octaves; around 0.3, defects above normal ones in a narrow band."""
    rng = np.random.default_rng(seed)
    wide = 0.3 * 2.0 ** rng.uniform(-octaves, 0, 500_000)
    normal, defective = 0.3 * (
        1 + band * np.array([rng.uniform(0, 1, 250_000), rng.uniform(0.5, 1.5, 250_000)])
    )
    maps = np.concatenate([wide, normal, defective]).astype(np.float32).reshape(4, 500, 500)
    masks = np.arange(10**6).reshape(maps.shape) >= 750_000
    return maps, masks


@pytest.mark.parametrize(("octaves", "band"), [(110, 1e-5), (60, 1e-4)])
def test_too_few_bins_for_so_many_octaves_are_told(octaves, band):
    maps, masks = spread(octaves, band)
    exact = evaluate_maps(maps, masks, exact=True)
    with pytest.warns(UserWarning, match="octaves.*exact"):
        binned = evaluate_maps(maps, masks)
    assert abs(binned["pixel_auroc"] - exact["pixel_auroc"]) > 1e-4


@pytest.mark.parametrize("case", ["wide", "zeros"])
def test_bins_that_tell_scores_apart_are_not_warned_of(case):
    maps, masks = spread(100, 3) if case == "wide" else spread(25, 1)
    if case == "zeros":
        maps[maps < np.quantile(maps, 0.3)] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        binned = evaluate_maps(maps, masks)
    exact = evaluate_maps(maps, masks, exact=True)
    assert binned["pixel_auroc"] == pytest.approx(exact["pixel_auroc"], abs=1e-4)
