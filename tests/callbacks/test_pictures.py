import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from lightning_ad.callbacks import Panels, Predictions
from tests.callbacks.example import PHOTOGRAPH, Data, Detector, Images, trainer


def run_panels(folder, root, count=24, per_category=4):
    trainer(folder, Panels(per_category)).test(Detector(), Data(count, root), verbose=False)
    return [file.relative_to(folder).as_posix() for file in (folder / "panels").rglob("*.jpg")]


def test_panels_show_defective_and_normal_images_of_each_category(tmp_path):
    names = run_panels(tmp_path, tmp_path / "data")
    assert len(names) == 8
    kinds = Counter((name.split("/")[1], "good" in name) for name in names)
    assert kinds == {
        ("bottle", False): 3,
        ("bottle", True): 1,
        ("cable", False): 3,
        ("cable", True): 1,
    }
    picture = cv2.imread(str(tmp_path / names[0]))
    # Photographs of 40 x 64 are enlarged by a whole factor to at least 256.
    assert picture.shape[0] > 7 * PHOTOGRAPH[0] and picture.shape[1] > 3 * 7 * PHOTOGRAPH[1]


def test_too_few_of_one_kind_leaves_room_for_the_other(tmp_path):
    names = run_panels(tmp_path, tmp_path / "data", count=6)  # each category: 1 normal, 2 defective
    assert len(names) == 6


def test_no_panels_on_request(tmp_path):
    assert run_panels(tmp_path, tmp_path / "data", per_category=0) == []


def test_every_image_of_a_test_has_a_thumbnail_and_a_mask(tmp_path):
    run_panels(tmp_path, tmp_path / "data", count=6, per_category=1)
    shapes = {cv2.imread(str(file)).shape for file in (tmp_path / "thumbnails").rglob("*.jpg")}
    assert shapes == {(150, 2 * 240, 3)}  # photograph and heat of 40 x 64
    assert len(list((tmp_path / "thumbnails").rglob("*.jpg"))) == 6
    assert not (tmp_path / "masks").exists()  # there is no threshold


def test_a_disk_that_fills_up_costs_pictures_alone(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(self, data):
        if self.suffix == ".jpg":
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    caller = trainer(tmp_path, Predictions(), Panels())
    with pytest.raises(OSError, match=r"picture .*No space left.* 9 images have no pictures"):
        caller.predict(Detector(0.5), Data(9, tmp_path / "data"), return_predictions=False)
    rows = list(csv.DictReader((tmp_path / "predictions/predictions.csv").open()))
    assert len(rows) == 9


@pytest.mark.parametrize("threshold", [0.6, None])
def test_predictions_say_which_images_are_anomalous(tmp_path, threshold):
    data = Data(9, tmp_path / "data")
    caller = trainer(tmp_path, Predictions(save_maps=True), Panels())
    caller.predict(Detector(threshold), data, return_predictions=False)
    folder = tmp_path / "predictions"
    rows = list(csv.DictReader((folder / "predictions.csv").open()))
    assert len(rows) == 9
    for row in rows:
        above = {"0": False, "1": True, "": None}[row["anomalous"]]
        expected = None if threshold is None else float(row["score"]) > threshold
        assert above is expected
    one = Images(9, data.root)[4]
    name = "bottle/test/broken/004"
    panel = cv2.imread(str(folder / "panels" / f"{name}.png.jpg"))
    assert panel.shape[1] > 3 * 7 * PHOTOGRAPH[1]
    saved = np.load(folder / "maps" / f"{name}.png.npy")
    assert saved.dtype == np.float32
    np.testing.assert_array_equal(saved, one["image"][0].numpy())


def test_what_was_scored_before_an_error_is_kept(tmp_path, monkeypatch):
    detect, calls = Detector.predict_step, []

    def fail_in_third_batch(self, batch, batch_idx):
        calls.append(batch_idx)
        if len(calls) == 3:
            raise OSError("the camera is gone")
        return detect(self, batch, batch_idx)

    monkeypatch.setattr(Detector, "predict_step", fail_in_third_batch)
    with pytest.raises(OSError, match="the camera is gone"):
        trainer(tmp_path, Predictions()).predict(
            Detector(0.5), Data(9, tmp_path / "data"), return_predictions=False
        )
    kept = tmp_path / "predictions/predictions-until-error-0.csv"
    assert 0 < len(list(csv.DictReader(kept.open()))) < 9
    trainer(tmp_path, Predictions()).predict(
        Detector(0.5), Data(9, tmp_path / "data"), return_predictions=False
    )
    assert not kept.exists() and (tmp_path / "predictions/predictions.csv").exists()


def test_predictions_of_other_images_are_kept_apart(tmp_path):
    folder, counts = tmp_path / "predictions", []
    for count in (9, 9, 5):
        data = Data(count, tmp_path / "data")
        caller = trainer(tmp_path, Predictions(), Panels())
        caller.predict(Detector(0.5), data, return_predictions=False)
    for name in ("predictions", "predictions-1"):
        rows = list(csv.DictReader((tmp_path / name / "predictions.csv").open()))
        assert len(list((tmp_path / name / "panels").rglob("*.jpg"))) == len(rows)
        counts.append(len(rows))
    assert counts == [5, 9] and not folder.with_name("predictions-2").exists()
