"""Every method trains, calibrates, tests and predicts on padded images that are not square."""

import json

import numpy as np
import pytest

from lightning_ad import load_detector
from lightning_ad.cli import main
from tests.fakes import texture, write, write_mtd
from tests.shrunk import EXPERIMENTS, QUIET, fit_method

pytestmark = pytest.mark.whole

SMALLER = ("DDAD", "TextureDDM")
OF_LATENTS = {"D3AD": ["--model.denoiser.image_size=[16,32]"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("rectangles")
    write_mtd(found / "mtd")
    return found


@pytest.mark.parametrize("method", EXPERIMENTS)
def test_a_method_takes_padded_rectangles(folder, tmp_path, autoencoder, method):
    run, size = tmp_path / "run", "[16, 32]" if method in SMALLER else "[32, 64]"
    options = [f"--data.image_size={size}", "--data.fit=pad", *OF_LATENTS.get(method, [])]
    main(fit_method(method, folder, run, autoencoder, *options))
    measured = json.loads((run / "metrics.json").read_text())
    assert (measured["data.image_size"], measured["data.fit"]) == (size, "pad")
    photograph = write(tmp_path / "photos/tall.png", texture(3, 90, 33))
    found = load_detector(run / "final.ckpt").predict(photograph)
    assert found.anomaly_map.shape == (90, 33) and np.isfinite(found.anomaly_map).all()
    where = ["--data=Folder", f"--data.root={tmp_path / 'photos'}", *QUIET]
    main(["predict", f"--ckpt_path={run / 'final.ckpt'}", *where])
    [one] = json.loads((run / "predictions/predictions.json").read_text())["images"]
    assert one["size"] == [90, 33]
    assert one["score"] == pytest.approx(found.score, abs=1e-5)
