import csv
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from lightning_ad.callbacks import Panels, Predictions
from lightning_ad.reports.drawing import Scale, heat, photograph, row_of
from tests.callbacks.example import SIZE, Data, Detector, Images, trainer


def run_panels(folder, root, count=24, per_category=4):
    trainer(folder, Panels(per_category)).test(Detector(), Data(count, root), verbose=False)
    return [file.relative_to(folder).as_posix() for file in (folder / "panels").rglob("*.png")]


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
    assert picture.shape[0] > 256 and picture.shape[1] > 4 * 256


def test_too_few_of_one_kind_leaves_room_for_the_other(tmp_path):
    names = run_panels(tmp_path, tmp_path / "data", count=6)  # each category: 1 normal, 2 defective
    assert len(names) == 6


def test_no_panels_on_request(tmp_path):
    assert run_panels(tmp_path, tmp_path / "data", per_category=0) == []


def test_a_tile_shows_the_image_in_its_own_colours():
    image = torch.full((3, SIZE, SIZE), -1.0)
    image[0] = 1.0  # red
    row = row_of({"image": photograph(image)}, "title", Scale(0, 1))
    assert tuple(row[row.shape[0] // 2, 100]) == (0, 0, 255)  # OpenCV puts blue first


def test_heat_orders_from_blue_to_red_and_clips():
    colours = heat(np.array([[-5, 0.1, 0.9, 50]], np.float32), Scale(0, 1))[0].astype(int)
    blue, red = colours[:, 0], colours[:, 2]
    assert blue[1] > red[1] and red[2] > blue[2]
    ends = heat(np.array([[0, 1]], np.float32), Scale(0, 1))[0]
    assert (colours[0] == ends[0]).all() and (colours[3] == ends[1]).all()


@pytest.mark.parametrize("threshold", [0.6, None])
def test_predictions_say_which_images_are_anomalous(tmp_path, threshold):
    data = Data(9, tmp_path / "data")
    caller = trainer(tmp_path, Predictions(save_maps=True))
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
    assert (folder / "panels" / f"{name}.png").is_file()
    assert cv2.imread(str(folder / "heatmaps" / f"{name}.png")).shape == (SIZE, SIZE, 3)
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
        trainer(tmp_path, Predictions()).predict(Detector(0.5), data, return_predictions=False)
    for name in ("predictions", "predictions-1"):
        rows = list(csv.DictReader((tmp_path / name / "predictions.csv").open()))
        assert len(list((tmp_path / name / "panels").rglob("*.png"))) == len(rows)
        counts.append(len(rows))
    assert counts == [5, 9] and not folder.with_name("predictions-2").exists()
