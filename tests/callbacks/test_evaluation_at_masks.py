"""Metrics where masks have pixels: at their own sizes, as scikit-learn counts them."""

import json

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import average_precision_score, roc_auc_score

from data_modules import Folder
from lightning_ad.callbacks import Evaluation
from tests.fakes import defective, texture, write
from tests.methods.tiny import Brightness

SHAPES = [(60, 41), (33, 90), (50, 50)]


@pytest.fixture
def root(tmp_path):
    for number in range(4):
        write(tmp_path / f"parts/train/{number}.png", texture(number, 50, 60))
    for number, shape in enumerate(SHAPES):
        write(tmp_path / f"parts/test/good/{number}.png", texture(9 + number, *shape))
        image, mask = defective(20 + number, *shape)
        write(tmp_path / f"parts/test/dent/{number}.png", image)
        write(tmp_path / f"parts/ground_truth/dent/{number}.png", mask * 255)
    return tmp_path / "parts"


def measured(root, run, at, fit):
    data = Folder(str(root), image_size=(32, 40), fit=fit, num_workers=0, cache=False, batch_size=2)
    detector = Brightness()
    detector.framing = data.framing
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=run, callbacks=[Evaluation(exact=True, at=at)],
    )  # fmt: skip
    trainer.test(detector, datamodule=data, verbose=False)
    return json.loads((run / "metrics.json").read_text()), detector


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_pixels_are_those_of_the_masks(root, tmp_path, fit):
    found, detector = measured(root, tmp_path / "run", "mask", fit)
    values, truth = [], []
    for kind in ("good", "dent"):
        for file in sorted((root / "test" / kind).glob("*.png")):
            mask = cv2.imread(str(root / "ground_truth/dent" / file.name), cv2.IMREAD_GRAYSCALE)
            own = detector.predict(file).anomaly_map
            mask = np.zeros(own.shape) if kind == "good" else mask
            assert own.shape == mask.shape and np.isnan(own).any() == (fit == "crop")
            values.append(own[~np.isnan(own)])
            truth.append(mask[~np.isnan(own)] > 127)
    values, truth = np.concatenate(values), np.concatenate(truth)
    category = root.name
    assert found[f"test/{category}/pixel_auroc"] == pytest.approx(roc_auc_score(truth, values))
    precision = average_precision_score(truth, values)
    assert found[f"test/{category}/pixel_auprc"] == pytest.approx(precision, abs=1e-9)


def test_where_pixels_are_counted_is_in_the_fingerprint_unless_it_is_the_map(root, tmp_path):
    at_map, _ = measured(root, tmp_path / "map", "map", "pad")
    at_mask, _ = measured(root, tmp_path / "mask", "mask", "pad")
    assert "at" not in at_map and at_mask["at"] == "mask"
    assert at_map["fingerprint"] != at_mask["fingerprint"]


def test_a_mask_that_is_gone_at_the_size_of_the_map_counts_at_its_own(root, tmp_path, caplog):
    for number, shape in enumerate(SHAPES):
        mask = np.zeros(shape, np.uint8)
        mask[1, 1] = 255
        write(root / f"ground_truth/dent/{number}.png", mask)
    measured(root, tmp_path / "mask", "mask", "squash")
    assert "no pixel is marked" not in caplog.text


def test_another_place_is_refused():
    with pytest.raises(ValueError, match=r"evaluation\.at must be map or mask, not pixel"):
        Evaluation(at="pixel")


def test_a_diverged_map_is_an_error_there_too(root, tmp_path, monkeypatch):
    nan = lambda self, parts, category: torch.full_like(parts["pixel"], torch.nan)  # noqa: E731
    monkeypatch.setattr(Brightness, "fuse", nan)
    with pytest.raises(ValueError, match="NaN or infinite"):
        measured(root, tmp_path / "run", "mask", "pad")
