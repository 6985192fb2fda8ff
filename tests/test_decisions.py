"""From the command line to a decision: moved thresholds, a region of interest, a watched folder."""

import csv
import json
import logging
import shutil

import cv2
import numpy as np
import pytest

from data_modules.reading import watch
from lightning_ad import load_detector
from lightning_ad.callbacks import Predictions
from lightning_ad.cli import main
from lightning_ad.methods import PaDiM
from tests.fakes import defective, texture, write
from tests.shrunk import FEATURES, QUIET, REPOSITORY, SMALL

pytestmark = pytest.mark.whole

SIZE = (40, 60)
RATE = 0.1


def write_part(root):
    """Photographs that are not square; of two defects, one lies in the left half."""
    for index in range(24):
        write(root / f"train/{index}.png", texture(index, *SIZE))
    for index in range(4):
        write(root / f"test/good/{index}.png", texture(100 + index, *SIZE))
    for index, left in enumerate((40, 5)):
        image, mask = defective(200 + index, *SIZE)
        shift = left - int(np.nonzero(mask)[1].min())
        image, mask = (np.roll(each, shift, axis=1) for each in (image, mask))
        write(root / f"test/hole/{index}.png", image)
        write(root / f"ground_truth/hole/{index}.png", mask * np.uint8(255))
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of PaDiM with folds and a region of interest, whose mask is gone since."""
    folder = tmp_path_factory.mktemp("decisions")
    part = write_part(folder / "part")
    mask = np.zeros(SIZE, np.uint8)
    mask[:, : SIZE[1] // 2] = 255
    write(folder / "roi.png", mask)
    main([
        "fit", f"--config={REPOSITORY / 'experiments/padim_mtd.yaml'}", "--data=Folder",
        f"--data.root={part}", f"--data.roi={folder / 'roi.png'}", f"--run_dir={folder / 'run'}",
        f"--data.cache_dir={folder / 'cache'}", "--data.image_size=32", "--model.components=4",
        f"--model.false_alarm_rate={RATE}", "--model.folds=3", *FEATURES, *SMALL,
    ])  # fmt: skip
    (folder / "roi.png").rename(folder / "roi_of_before.png")
    return folder / "run"


def said(folder):
    return json.loads((folder / "predictions.json").read_text())


def measured(folder):
    return json.loads((folder / "metrics.json").read_text())


def rows(file):
    with file.open(newline="") as table:
        return list(csv.DictReader(table))


def test_a_test_says_what_it_found_and_where(run):
    whole = said(run)
    assert (whole["false_alarm_rate"], whole["threshold_from"]) == (RATE, "calibration")
    images = {image["path"]: image for image in whole["images"]}
    assert images["test/hole/0.png"]["verdict"] == "not judged"  # it lies in the right half
    assert len(images) == 6 and images["test/hole/1.png"]["kind"] == "hole"
    for image in images.values():
        assert image["size"] == list(SIZE)
        mask = cv2.imread(str(run / "masks" / image["path"]), cv2.IMREAD_GRAYSCALE)
        assert mask.shape == SIZE and not mask[:, SIZE[1] // 2 :].any()
        assert int((mask > 0).sum()) == sum(region["area"] for region in image["regions"])
        shares = [region["share"] * SIZE[0] * SIZE[1] / 2 for region in image["regions"]]
        assert shares == pytest.approx([region["area"] for region in image["regions"]])
    table = {row["path"]: row for row in rows(run / "scores.csv")}
    for path, image in images.items():
        row = table[f"{whole['root']}/{path}"]
        assert float(row["p_value"]) == image["p_value"] and row["verdict"] == image["verdict"]
    assert len(rows(run / "regions.csv")) == sum(len(i["regions"]) for i in images.values())
    counted = measured(run)
    assert (counted["verdicts/all/not_judged"], counted["verdicts/all/defective"]) == (1, 1)


def test_thresholds_move_without_training_and_results_stay_apart(run):
    main(["test", f"--ckpt_path={run / 'final.ckpt'}", "--false_alarm_rate=0.3", *QUIET])
    before, moved = said(run), said(run / "test-1")
    assert moved["false_alarm_rate"] == 0.3 and moved["fingerprint"] != before["fingerprint"]
    detector = load_detector(run / "final.ckpt")
    assert detector.threshold(RATE) == pytest.approx(before["images"][0]["threshold"])
    detector.decide_by(false_alarm_rate=0.3)
    for old, new in zip(before["images"], moved["images"], strict=True):
        assert new["score"] == old["score"] and new["threshold"] < old["threshold"]
        finding = detector.predict(f"{moved['root']}/{new['path']}", "part")
        assert finding.score == pytest.approx(new["score"], rel=1e-5)
        assert finding.threshold == pytest.approx(new["threshold"], rel=1e-5)
        if new["verdict"] != "not judged":
            assert new["verdict"] == finding.verdict
            assert (new["verdict"] == "anomalous") == (new["p_value"] <= 0.3)
    assert before["images"] == said(run)["images"]
    # Another option leads to the same place.
    main(["test", f"--ckpt_path={run / 'final.ckpt'}", "--model.false_alarm_rate=0.3", *QUIET])
    assert not (run / "test-2").exists()


def test_a_threshold_by_hand_flags_what_is_above_and_says_so(run, tmp_path, caplog):
    photographs = tmp_path / "photographs"
    shutil.copytree(run.parent / "part/test", photographs)
    scores = sorted(image["score"] for image in said(run)["images"])
    threshold = (scores[2] + scores[3]) / 2
    arguments = [f"--threshold={threshold}", "--smallest_region=30", f"--run_dir={tmp_path}"]
    data = ["--data=Folder", f"--data.root={photographs}"]
    with caplog.at_level(logging.INFO):
        main(["predict", f"--ckpt_path={run / 'final.ckpt'}", *data, *arguments, *QUIET])
    assert "3 of 6 flagged" in caplog.text and "given by hand" in caplog.text
    whole = said(tmp_path / "predictions")
    assert (whole["false_alarm_rate"], whole["threshold_from"]) == (None, "hand")
    assert all(r["area"] >= 30 for image in whole["images"] for r in image["regions"])
    assert {image["label"] for image in whole["images"]} == {None}
    table = rows(tmp_path / "predictions/predictions.csv")
    flagged = [float(row["score"]) > threshold for row in table]
    assert [row["anomalous"] == "1" for row in table] == flagged and sum(flagged) == 3
    assert all(float(row["seconds"]) > 0 for row in table)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--false_alarm_rate=1.5"], "false_alarm_rate must lie between 0 and 1"),
        (["--threshold=1", "--false_alarm_rate=0.1"], "exclude each other"),
        (["--smallest_region=0"], "at least 1 pixel"),
    ],
)
def test_what_decides_nothing_is_refused(run, options, message):
    with pytest.raises(ValueError, match=message):
        main(["predict", f"--ckpt_path={run / 'final.ckpt'}", *options, *QUIET])


def test_a_region_of_interest_can_be_given_in_python(run):
    detector, photograph = load_detector(run / "final.ckpt"), run.parent / "part/test/hole/0.png"
    left, everything = np.zeros(SIZE, bool), np.ones(SIZE, bool)
    left[:, : SIZE[1] // 2] = True
    kept = detector.predict(photograph)
    assert detector.predict(photograph, interest=left).score == kept.score
    whole = detector.predict(photograph, interest=everything)
    assert whole.score > kept.score and np.isfinite(whole.anomaly_map).all()
    assert np.isnan(kept.anomaly_map).sum() == SIZE[0] * SIZE[1] // 2
    for wrong, message in ((left[:9], "the photograph"), (left & ~left, "less than a pixel")):
        with pytest.raises(ValueError, match=message):
            detector.predict(photograph, interest=wrong)


def test_a_photograph_of_another_size_than_the_region_is_named(run, tmp_path):
    write(tmp_path / "photographs/small.png", texture(0, 20, 30))
    write(tmp_path / "photographs/whole.png", texture(0, *SIZE))
    data = ["--data=Folder", f"--data.root={tmp_path / 'photographs'}", f"--run_dir={tmp_path}"]
    with pytest.raises(ValueError, match=r"all but these: 1 problem(?s:.*)60x40 pixels.*30x20"):
        main(["predict", f"--ckpt_path={run / 'final.ckpt'}", *data, *QUIET])
    assert [image["path"] for image in said(tmp_path / "predictions")["images"]] == ["whole.png"]
    with pytest.raises(ValueError, match="60x40 pixels, its image has 30x20"):
        load_detector(run / "final.ckpt").predict(tmp_path / "photographs/small.png")


def test_an_interrupted_prediction_goes_on(run, tmp_path, monkeypatch):
    """The third batch meets a full disk; what is scored again is what has changed since, too."""
    for index in range(8):
        write(tmp_path / f"photographs/{index}.png", texture(index, *SIZE))
    predict, scored, room = PaDiM.predict_step, [], [2]

    def predict_step(self, batch, batch_idx):
        if room[0] == 0:
            raise OSError("No space left on device")
        room[0] -= 1
        scored.extend(path.rpartition("/")[2] for path in batch["path"])
        return predict(self, batch, batch_idx)

    def predicted(batches, *more):
        scored.clear()
        room[0] = batches
        main([
            "predict", f"--ckpt_path={run / 'final.ckpt'}", "--data=Folder", "--data.batch_size=2",
            f"--data.root={tmp_path / 'photographs'}", f"--run_dir={tmp_path}", *QUIET, *more,
        ])  # fmt: skip
        return [name.removesuffix(".png") for name in scored]

    monkeypatch.setattr(PaDiM, "predict_step", predict_step)
    with pytest.raises(OSError, match="No space left"):
        predicted(2)
    assert len(rows(tmp_path / "predictions/predictions-until-error-0.csv")) == 4
    write(tmp_path / "photographs/1.png", texture(99, *SIZE))  # is another photograph now
    (tmp_path / "predictions/panels/2.png.jpg").unlink()  # was not drawn before the end
    assert predicted(9) == ["1", "2", "4", "5", "6", "7"]
    resumed = said(tmp_path / "predictions")["images"]
    assert len(rows(tmp_path / "predictions/predictions.csv")) == 8
    assert len(list((tmp_path / "predictions/panels").iterdir())) == 8
    assert not list((tmp_path / "predictions").glob("*-*"))
    assert predicted(9) == list("01234567")  # a finished one starts anew
    for before, after in zip(resumed, said(tmp_path / "predictions")["images"], strict=True):
        same = ("path", "score", "verdict", "regions")
        assert [before[name] for name in same] == [after[name] for name in same]
    with pytest.raises(OSError, match="No space left"):
        predicted(1)
    assert predicted(9, "--false_alarm_rate=0.3") == list("01234567")
    with pytest.raises(OSError, match="No space left"):
        predicted(3)
    monkeypatch.setattr(Predictions, "on_predict_end", lambda *_: None)
    assert predicted(9) == ["6", "7"]
    monkeypatch.undo()
    predicted(0)  # all was scored, and is only written
    assert len(said(tmp_path / "predictions")["images"]) == 8


def test_a_watched_folder_goes_on_where_it_ended(run, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "PAUSE", 0.0)
    scored = Predictions.on_predict_batch_end
    arriving = [f"photographs/{name}.png" for name in ("b", "=c")]

    def another_arrives(self, trainer, *args):
        scored(self, trainer, *args)
        before = rows(tmp_path / "predictions/predictions.csv")
        lengths.append(len(before))
        if len(lengths) == 3 or not arriving:
            trainer.datamodule.arrivals.stop()
        else:
            write(tmp_path / arriving.pop(0), texture(len(arriving), *SIZE))

    monkeypatch.setattr(Predictions, "on_predict_batch_end", another_arrives)
    write(tmp_path / "photographs/a.png", texture(0, *SIZE))
    data = ["--data=Folder", f"--data.root={tmp_path / 'photographs'}", f"--run_dir={tmp_path}"]
    arguments = ["predict", f"--ckpt_path={run / 'final.ckpt'}", *data, "--watch", *QUIET]
    for expected in ([1, 2, 3], [4]):
        lengths = []
        main(arguments)
        assert lengths == expected
        write(tmp_path / "photographs/e.png", texture(9, *SIZE))
    images = said(tmp_path / "predictions")["images"]
    assert [image["path"] for image in images] == ["=c.png", "a.png", "b.png", "e.png"]
