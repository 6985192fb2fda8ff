"""A method needs no phase, no reconstruction and no fusion of its own; no masks to predict."""

import csv
import json
import shutil
import subprocess
import sys

import cv2
import pytest
import torch
from lightning.pytorch import Trainer

from data_modules import VisA
from lightning_ad.cli import main
from tests.baseline import FromMeanImage
from tests.fakes import write_visa_raw
from tests.shrunk import SMALL

pytestmark = pytest.mark.whole

TRUSTED = ["--trust=tests.baseline"]  # a checkpoint alone may not name classes of others


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline")
    write_visa_raw(folder / "data")
    main(["fit", "--model=tests.baseline.FromMeanImage", *arguments(folder)])
    return folder


def arguments(folder):
    data = ["--data=VisA", f"--data.root={folder / 'data'}", f"--data.cache_dir={folder / 'cache'}"]
    return [*data, "--data.image_size=16", f"--run_dir={folder / 'run'}", *SMALL]


def test_fit_remembers_calibrates_and_tests(run):
    state = torch.load(run / "run/final.ckpt", weights_only=True)["state_dict"]
    data = VisA(str(run / "data"), image_size=16, cache=False, num_workers=0)
    images = torch.cat([batch["image"] for batch in data.memory_dataloader()])
    torch.testing.assert_close(state["calibration.mean"], images.mean(0))
    metrics = json.loads((run / "run/metrics.json").read_text())
    assert 0 <= metrics["test/mean/image_auroc"] <= 1


def test_panels_leave_out_the_reconstruction(run):
    panel = cv2.imread(str(next((run / "run/panels").rglob("*.jpg"))))
    height, width = cv2.imread(str(next((run / "data").rglob("*.JPG")))).shape[:2]
    tile = -(-256 // min(height, width)) * width
    assert 2 * tile < panel.shape[1] < 3 * tile  # photograph and map, then the scale of colours


def test_validate_and_test_run_from_the_checkpoint(run):
    checkpoint = f"--ckpt_path={run / 'run/final.ckpt'}"
    with pytest.warns(UserWarning, match="FromMeanImage trains nothing"):
        main(["validate", checkpoint, *TRUSTED, *SMALL])
    before = (run / "run/scores.csv").read_text()
    main(["test", checkpoint, *TRUSTED, *SMALL])
    assert (run / "run/scores.csv").read_text() == before


def test_predict_needs_no_masks(run, tmp_path):
    shutil.copytree(run / "data", tmp_path / "data")
    for folder in (tmp_path / "data").rglob("Masks"):
        shutil.rmtree(folder)
    checkpoint = [f"--ckpt_path={run / 'run/final.ckpt'}", f"--run_dir={tmp_path}"]
    main(["predict", *checkpoint, *TRUSTED, f"--data.root={tmp_path / 'data'}", *SMALL])
    predictions = scores(tmp_path / "predictions/predictions.csv", tmp_path)
    assert predictions == scores(run / "run/scores.csv", run)


def scores(table, root):
    with table.open() as file:
        return {row["path"].removeprefix(str(root)): row["score"] for row in csv.DictReader(file)}


def test_scoring_loads_no_networks_that_the_method_does_not_have(run):
    code = """if True:
        import sys
        import numpy as np
        from lightning_ad import load_detector
        detector = load_detector(sys.argv[1], trust=["tests.baseline"])
        detector.predict(np.zeros((20, 30, 3), np.uint8))
        print(*{"diffusers", "timm", "wandb", "skimage"} & set(sys.modules))
    """
    command = [sys.executable, "-c", code, str(run / "run/final.ckpt")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "\n"


def test_weights_for_a_first_phase_that_there_is_not_are_refused(run, tmp_path):
    model = ["--model=tests.baseline.FromMeanImage", f"--ckpt_path={run / 'run/final.ckpt'}"]
    with pytest.raises(ValueError, match="FromMeanImage has no phase"):
        main(["fit", *model, *arguments(run), f"--run_dir={tmp_path / 'run'}"])


def test_a_trainer_of_ones_own_fits_nothing(run):
    data = VisA(str(run / "data"), image_size=16, cache=False, num_workers=0)
    with pytest.warns(UserWarning, match="FromMeanImage trains nothing"):
        Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu").fit(
            FromMeanImage(), data
        )
