import csv
import json
import math
import re

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_ad.callbacks import Evaluation, Throughput
from lightning_ad.metrics import evaluate_maps
from lightning_ad.reports.files import name_below
from tests.callbacks.example import CATEGORIES, SIZE, Data, Detector, Images, trainer

COUNT = 17
SPEED = ("test/images_per_second", "test/milliseconds_per_image")


def run_test(folder, *, data=None, evaluation=None, **options):
    callbacks = Throughput(), evaluation or Evaluation()
    tester = trainer(folder, *callbacks, **options)
    tester.test(Detector(), data or Data(COUNT, folder / "data"), verbose=False)
    return tester


def results_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_metrics_reach_the_trainer_the_loggers_and_the_files(tmp_path, capsys):
    tester = run_test(tmp_path, logger=CSVLogger(tmp_path / "log"))
    written = results_of(tmp_path)
    items = [Images(COUNT, tmp_path)[index] for index in range(COUNT)]
    for number, category in enumerate(CATEGORIES):
        chosen = [item for item in items if item["category"] == number]
        maps = torch.stack([item["image"][0] for item in chosen])
        masks = torch.stack([item["mask"][0] for item in chosen])
        for name, value in evaluate_maps(maps, masks).items():
            assert written[f"test/{category}/{name}"] == value
    mean = np.mean([written[f"test/{category}/pixel_aupro"] for category in CATEGORIES])
    assert written["test/mean/pixel_aupro"] == pytest.approx(mean, abs=1e-12)
    assert written["images"] == COUNT and written["protocol"] == "default"
    assert written["data.categories"] == " ".join(CATEGORIES)
    assert not any(isinstance(value, dict | list) for value in written.values())

    logged = {key: float(value) for key, value in tester.callback_metrics.items()}
    expected = {key: value for key, value in written.items() if key.startswith("test/")}
    assert logged == pytest.approx(expected, rel=1e-6)
    log = next((tmp_path / "log").rglob("metrics.csv"))
    [row] = csv.DictReader(log.open())
    assert float(row["test/mean/image_auroc"]) == pytest.approx(written["test/mean/image_auroc"])
    hyperparameters = next((tmp_path / "log").rglob("hparams.yaml")).read_text()
    assert written["fingerprint"] in hyperparameters

    rows = {row["category"]: row for row in csv.DictReader((tmp_path / "metrics.csv").open())}
    assert list(rows) == [*CATEGORIES, "mean"]
    assert float(rows["cable"]["pixel_auroc"]) == written["test/cable/pixel_auroc"]
    printed = capsys.readouterr().out
    assert f"{100 * written['test/mean/image_auroc']:.2f}" in printed
    assert f"{100 * written['test/bottle/pixel_aupro']:.2f}" in printed
    assert "images/s" in printed and written["fingerprint"] in printed


def test_scores_are_listed_by_path_and_agree_with_the_metrics(tmp_path):
    run_test(tmp_path)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert len(rows) == COUNT
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    for category in CATEGORIES:
        here = [row for row in rows if row["category"] == category]
        labels, scores = [[float(row[name]) for row in here] for name in ("label", "score")]
        expected = roc_auc_score(labels, scores)
        assert results_of(tmp_path)[f"test/{category}/image_auroc"] == pytest.approx(expected)


def test_undefined_metrics_are_null_in_json_and_empty_in_csv(tmp_path):
    with pytest.warns(UserWarning, match="undefined"):
        run_test(tmp_path, data=Data(2, tmp_path))  # one normal bottle, one defective cable
    written = results_of(tmp_path)
    assert written["test/bottle/pixel_aupro"] is None
    assert written["test/mean/image_auroc"] is None
    assert written["test/mean/pixel_auroc"] == written["test/cable/pixel_auroc"] > 0.5
    assert re.search(r"^bottle,,,", (tmp_path / "metrics.csv").read_text(), re.MULTILINE)


@pytest.mark.parametrize("count", [1, 5])
def test_defective_images_without_a_marked_pixel_are_named(tmp_path, caplog, monkeypatch, count):
    whole = Images.__getitem__
    black = [index for index in range(COUNT) if index % 3][:count]

    def without_mask(self, index):
        item = whole(self, index)
        return {**item, "mask": item["mask"] * 0} if index in black else item

    run_test(tmp_path)
    assert "no pixel is marked" not in caplog.text
    monkeypatch.setattr(Images, "__getitem__", without_mask)
    run_test(tmp_path)
    assert f"no pixel is marked in {count} defective image(s)" in caplog.text
    caplog.clear()
    run_test(tmp_path, data=Data(COUNT, tmp_path, has_masks=False))
    assert "no pixel is marked" not in caplog.text


def test_without_masks_only_image_metrics(tmp_path):
    run_test(tmp_path, data=Data(COUNT, tmp_path, has_masks=False))
    metrics = [key for key in results_of(tmp_path) if key.startswith("test/mean/")]
    names = ["image_auroc", "image_auprc", "image_f1max"]
    assert metrics == [f"test/mean/{name}" for name in names]


def test_an_image_that_is_counted_twice_is_an_error(tmp_path):
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"scored more than once.*001\.png"),
    ):
        run_test(tmp_path, data=Data(COUNT, tmp_path, once=False))
    assert not (tmp_path / "metrics.json").exists()


def test_fingerprint_tells_what_defines_the_numbers(tmp_path):
    prints = set()
    variants = {
        "same": {},
        "again": {},
        "limit": {"evaluation": Evaluation(fpr_limit=0.05)},
        "exact": {"evaluation": Evaluation(exact=True)},
        "data": {"data": Data(COUNT - 1, tmp_path)},
    }
    for name, changes in variants.items():
        run_test(tmp_path / name, **changes)
        prints.add(results_of(tmp_path / name)["fingerprint"])
    assert len(prints) == len(variants) - 1


def test_bad_options_and_missing_data_module(tmp_path):
    with pytest.raises(ValueError, match="fpr_limit"):
        Evaluation(fpr_limit=0)
    data = Data(COUNT, tmp_path)
    tester = trainer(tmp_path, Evaluation())
    data.trainer = tester
    with pytest.raises(TypeError, match="datamodule"):
        tester.test(Detector(), data.test_dataloader())


def test_names_below_a_root_stay_unique(tmp_path):
    assert name_below(str(tmp_path / "a/b.png"), tmp_path).as_posix() == "a/b.png"
    outside = name_below("/elsewhere/b.png", tmp_path)
    assert not outside.is_absolute() and outside.name == "b.png"


def test_throughput_leaves_out_the_first_batch_and_other_callbacks(tmp_path, monkeypatch):
    clock = iter([0, 10, 10, 12, 12, 14, 14, 16, 16, 17])  # the first of five batches takes 10 s
    monkeypatch.setattr("lightning_ad.callbacks.throughput.now", lambda device: next(clock))
    tester = run_test(tmp_path)  # batches of 4, 4, 4, 4 and 1
    rate = float(tester.callback_metrics[SPEED[0]])
    assert rate == pytest.approx(13 / 7)
    assert float(tester.callback_metrics[SPEED[1]]) == pytest.approx(1000 / rate)
    assert results_of(tmp_path)[SPEED[0]] == pytest.approx(rate)


def test_throughput_of_a_single_batch_is_that_batch(tmp_path, monkeypatch):
    clock = iter([0, 2])
    monkeypatch.setattr("lightning_ad.callbacks.throughput.now", lambda device: next(clock))
    tester = run_test(tmp_path, data=Data(4, tmp_path))
    assert float(tester.callback_metrics[SPEED[0]]) == 2
    assert not math.isnan(float(tester.callback_metrics[SPEED[1]]))


def test_a_part_of_the_test_says_so_and_has_a_fingerprint_of_its_own(tmp_path, capsys):
    run_test(tmp_path / "whole")
    whole = results_of(tmp_path / "whole")
    assert "part" not in whole
    for limit, scored in ((1, 4), (2, 8), (0.5, 8)):
        run_test(tmp_path / str(limit), limit_test_batches=limit)
        part = results_of(tmp_path / str(limit))
        assert part["images"] == scored and part["part"] == f"{scored} of {COUNT} test images"
        assert part["fingerprint"] != whole["fingerprint"]
        assert f"only {scored} of {COUNT}" in capsys.readouterr().out
    same = [results_of(tmp_path / name)["fingerprint"] for name in ("2", "0.5")]
    other = results_of(tmp_path / "1")["fingerprint"]
    assert same[0] == same[1] != other


@pytest.mark.parametrize("names", [["s[a]", "b"], ["a", "[/b]"], ["a", ":x:"]])
def test_categories_that_look_like_markup_are_shown_as_they_are(tmp_path, capsys, names):
    data = Data(COUNT, tmp_path / "data")
    data.categories = names
    run_test(tmp_path, data=data)
    printed = capsys.readouterr().out
    assert all(f"│ {name} " in printed for name in names)


class Windowed(Images):
    """Of which only a window counts: the upper half, and of every fourth image what is no defect.

    That leaves the defect of these wholly outside.
    """

    def __getitem__(self, index):
        item = super().__getitem__(index)
        judged = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
        judged[:, : SIZE // 2] = 1
        return item | {"judged": judged * (1 - item["mask"]) if index % 4 == 0 else judged}


def test_only_what_is_judged_counts_and_a_defect_outside_leaves_its_image_unjudged(tmp_path):
    data = Data(COUNT, tmp_path / "data")
    data.images = Windowed(COUNT, tmp_path / "data")
    tester = trainer(tmp_path, Evaluation(exact=True))
    tester.test(Detector(0.6), data, verbose=False)
    written = results_of(tmp_path)
    rows = {row["path"]: row for row in csv.DictReader((tmp_path / "scores.csv").open())}
    items = [data.images[index] for index in range(COUNT)]
    outside = [i for i in items if i["label"] and not (i["mask"] * i["judged"]).any()]
    assert len(outside) > 1
    for item in items:
        inside = item["judged"][0].bool()
        assert float(rows[item["path"]]["score"]) == float(item["image"][0][inside].max())
        unjudged = any(item is other for other in outside)
        assert (rows[item["path"]]["verdict"] == "not judged") == unjudged
    for number, category in enumerate(CATEGORIES):
        here = [item for item in items if item["category"] == number]
        inside = [item["judged"][0].bool() for item in here]
        pixels = torch.cat([i["image"][0][m] for i, m in zip(here, inside, strict=True)])
        truth = torch.cat([i["mask"][0][m] for i, m in zip(here, inside, strict=True)])
        expected = roc_auc_score(truth, pixels), average_precision_score(truth, pixels)
        found = [written[f"test/{category}/pixel_{name}"] for name in ("auroc", "auprc")]
        assert found == pytest.approx(expected)
        counted = [i for i in here if not any(i is other for other in outside)]
        scores = [float(i["image"][0][i["judged"][0].bool()].max()) for i in counted]
        expected = roc_auc_score([i["label"] for i in counted], scores)
        assert written[f"test/{category}/image_auroc"] == pytest.approx(expected)
    assert written["verdicts/all/not_judged"] == len(outside)
    assert written["verdicts/all/good"] + written["verdicts/all/defective"] == COUNT - len(outside)


def test_verdicts_are_counted_and_told(tmp_path, capsys):
    data = Data(COUNT, tmp_path / "data")
    trainer(tmp_path, Evaluation()).test(Detector(0.6), data, verbose=False)
    items = [Images(COUNT, tmp_path)[index] for index in range(COUNT)]
    flagged = [float(item["image"][0].max()) > 0.6 for item in items]
    found = sum(one and item["label"] for one, item in zip(flagged, items, strict=True))
    passed = sum(not one and not item["label"] for one, item in zip(flagged, items, strict=True))
    written, printed = results_of(tmp_path), capsys.readouterr().out
    assert written["verdicts/all/defects_found"] == found > 0
    assert written["verdicts/all/good_passed"] == passed > 0
    defective = sum(item["label"] for item in items)
    assert written["verdicts/all/broken/defective"] == defective
    assert f"{found} of {defective}" in printed and f"{passed} of {COUNT - defective}" in printed
    assert written["threshold_from"] == "calibration"
