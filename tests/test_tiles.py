"""Whole runs in tiles: phases, caches, calibration and a checkpoint that suffices, on any number of
processes, whatever else is scored."""

import json

import numpy as np
import pytest
import torch

from lightning_ad import load_detector
from lightning_ad.cli import main
from tests.fakes import defective, texture, write
from tests.shrunk import QUIET, fit_method
from tests.test_processes import TWO, run_module

pytestmark = pytest.mark.whole

METHODS = {
    "PatchCore": ["--tiles=32"],
    "FeatureDiffusion": ["--tiles=32", "--scales", "1.0", "0.5"],
    "DDAD": ["--tiles=16", "--overlap=0.5"],
    "DeCoDiff": ["--tiles=[32,48]", "--model.cache_latents=true"],
}
SHAPES = [(70, 90), (60, 64), (33, 100), (90, 50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("tiles")
    parts = found / "parts"
    for number, shape in enumerate([*SHAPES, *SHAPES]):
        write(parts / f"train/{number}.png", texture(number, *shape))
    for number, shape in enumerate(SHAPES):
        write(parts / f"test/good/{number}.png", texture(9 + number, *shape))
        image, mask = defective(20 + number, *shape)
        write(parts / f"test/dent/{number}.png", image)
        write(parts / f"ground_truth/dent/{number}.png", mask * 255)
    return found


@pytest.fixture(scope="module")
def run_of(folder, autoencoder):
    """Fits a method the first time that its run is asked for."""

    def run_of(method):
        run = folder / method
        if not run.exists():
            data = ["--data=Folder", f"--data.root={folder / 'parts'}", "--data.category=part"]
            main(unsized(fit_method(method, folder, run, autoencoder, *data)) + METHODS[method])
        return run

    return run_of


def unsized(command):
    """A command of the magnetic tiles for photographs of any size."""
    return [o for o in command if not o.startswith(("--data.image_size", "--data.split"))]


def predict(run, root, to, *more):
    where = [
        "--data=Folder",
        f"--data.root={root}",
        f"--run_dir={to}",
        "--predictions.save_maps=true",
    ]
    return ["predict", f"--ckpt_path={run / 'final.ckpt'}", *where, *QUIET, *more]


def maps_in(folder):
    found = sorted((folder / "predictions/maps").rglob("*.npy"))
    return {str(file.relative_to(folder)): np.load(file) for file in found}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_in_tiles_says_so_and_its_checkpoint_suffices(run_of, folder, method):
    run = run_of(method)
    measured = json.loads((run / "metrics.json").read_text())
    assert measured["method"] == f"{method} in tiles" and measured["data.fit"] == "tile"
    assert measured["images"] == 8
    detector = load_detector(run / "final.ckpt")
    for file, (height, width) in zip(
        sorted((folder / "parts/test/dent").iterdir()), SHAPES, strict=True
    ):
        found = detector.predict(file)
        assert found.anomaly_map.shape == (height, width) and np.isfinite(found.anomaly_map).all()
        assert found.threshold is not None


@pytest.mark.parametrize("method", ["PatchCore", "DDAD"])
def test_neither_processes_nor_other_images_matter(run_of, folder, method, tmp_path):
    run, root = run_of(method), folder / "parts/test"
    main(predict(run, root, tmp_path / "one"))
    commands = [predict(run, root, tmp_path / "two", *TWO)]
    (tmp_path / "commands.json").write_text(json.dumps(commands))
    run_module("tests.run_commands", str(tmp_path / "commands.json"))
    one, two = maps_in(tmp_path / "one"), maps_in(tmp_path / "two")
    assert one.keys() == two.keys() and len(one) == 8
    main(predict(run, root / "dent/2.png", tmp_path / "alone"))
    [alone] = maps_in(tmp_path / "alone").values()
    for name, found in one.items():
        np.testing.assert_allclose(two[name], found, rtol=0, atol=1e-5 * np.abs(found).max())
        if name.endswith("dent/2.npy"):
            np.testing.assert_allclose(alone, found, rtol=0, atol=1e-5 * np.abs(found).max())


def test_thresholds_and_phases_come_from_the_training_images_alone(run_of):
    run = run_of("DDAD")
    state = torch.load(run / "final.ckpt", weights_only=True)["state_dict"]
    assert "calibration.normal_scores" in state and "method.calibration.ratio" in state
    phase = torch.load(run / "denoise.ckpt", weights_only=True)
    assert phase["method"] == "DDAD" and all(
        not k.startswith("method.") for k in phase["state_dict"]
    )
    again = run / "metrics.json"
    before = again.read_bytes()
    main(["test", f"--ckpt_path={run / 'final.ckpt'}", *QUIET])
    assert json.loads(again.read_bytes())["fingerprint"] == json.loads(before)["fingerprint"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--overlap=1.0", "--tiles=32"], r"model\.overlap must be from 0 to below 1"),
        (["--overlap=0.5"], "--overlap and --scales belong to --tiles"),
        (["--data.fit=tile"], "PatchCore takes images of one size.*--tiles"),
        (["--tiles=32", "--model.standardize=true"], "standardize compares places"),
        (["--tiles=32", "--model.folds=3"], r"model\.folds cannot be had with tiles: leave it out"),
        (["--tiles=32", "--data.fit=pad"], r"--tiles 32 decides data\.fit: leave --data\.fit or"),
        (["--data.image_size=64", "--tiles=32"], r"--tiles 32 decides data\.image_size"),
    ],
)
def test_options_that_do_not_go_together_are_named(folder, autoencoder, tmp_path, options, said):
    data = ["--data=Folder", f"--data.root={folder / 'parts'}", "--data.category=part"]
    command = fit_method("PatchCore", folder, tmp_path / "run", autoencoder, *data)
    with pytest.raises((SystemExit, ValueError), match=said):
        main(unsized(command) + options)
    assert not (tmp_path / "run").exists()


def test_other_scales_than_the_calibrated_ones_are_refused(run_of, folder, tmp_path):
    run = run_of("PatchCore")
    with pytest.raises((SystemExit, ValueError), match=r"model\.scales is \[0\.5\].*\[1\.0\]"):
        main(predict(run, folder / "parts/test", tmp_path / "run", "--model.scales=[0.5]"))
