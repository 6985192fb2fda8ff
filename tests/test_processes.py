"""Two processes train, calibrate, test and predict like one, and end when one of them fails."""

import csv
import json
import os
import subprocess
import sys

import pytest
import torch

from lightning_ad.cli import main
from tests.fakes import write_mtd
from tests.shrunk import EXPERIMENTS, QUIET, REPOSITORY, fit_ddad, fit_method

pytestmark = pytest.mark.whole

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
ALONE = "--data.eval_batch_size=1"  # in batches of other sizes the same image rounds otherwise
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def two(tmp_path_factory, autoencoder):
    """Every method, fitted by two processes that also predict; seven test images, one held out."""
    folder = tmp_path_factory.mktemp("two")
    write_mtd(folder / "mtd", good=4)
    commands = []
    for method in EXPERIMENTS:
        run = folder / method
        commands += [
            [*fit_method(method, folder, run, autoencoder, ALONE), *TWO],
            ["predict", f"--ckpt_path={run / 'final.ckpt'}", f"--run_dir={run / 'two'}", *QUIET,
             *TWO],
        ]  # fmt: skip
    (folder / "commands.json").write_text(json.dumps(commands))
    run_module("tests.run_commands", str(folder / "commands.json"))
    return folder


def run_module(*arguments):
    """Run a module as a program; its errors when it fails."""
    process = subprocess.run(
        [sys.executable, "-m", *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-3000:]


def lines(file):
    with file.open() as content:
        return list(csv.reader(content))


def assert_same_table(one, other):
    """Equal texts, and numbers to 1e-6."""
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        for a, b in zip(left, right, strict=True):
            try:
                assert float(a) == pytest.approx(float(b), rel=1e-6, abs=1e-6)
            except ValueError:
                assert a == b


@pytest.mark.parametrize("method", EXPERIMENTS)
def test_two_processes_measure_what_one_does(two, method):
    checkpoint = f"--ckpt_path={two / method / 'final.ckpt'}"
    alone = two / method / "one"
    main(["test", checkpoint, f"--run_dir={alone}", *QUIET])
    main(["predict", checkpoint, f"--run_dir={alone}", *QUIET])
    assert len(lines(alone / "scores.csv")) == 1 + 7
    assert_same_table(lines(alone / "scores.csv"), lines(two / method / "scores.csv"))
    assert_same_table(lines(alone / "metrics.csv"), lines(two / method / "metrics.csv"))
    predicted = [
        sorted(line[:-1] for line in lines(folder / "predictions/predictions.csv"))  # no seconds
        for folder in (alone, two / method / "two")
    ]
    assert_same_table(*predicted)
    found, expected = (json.loads((f / "metrics.json").read_text()) for f in (two / method, alone))
    assert found["fingerprint"] == expected["fingerprint"]


def test_calibration_does_not_depend_on_the_number_of_processes(two, tmp_path, autoencoder):
    checkpoint = torch.load(two / "DDAD/final.ckpt", weights_only=True)["state_dict"]
    run = tmp_path / "run"
    run.mkdir()
    for phase in ("denoise", "adapt"):
        (run / f"{phase}.ckpt").write_bytes((two / f"DDAD/{phase}.ckpt").read_bytes())
    main(fit_method("DDAD", two, run, autoencoder, ALONE))
    alone = torch.load(run / "final.ckpt", weights_only=True)["state_dict"]
    calibrated = [name for name in alone if name.startswith("calibration.")]
    assert calibrated
    for name in calibrated:
        torch.testing.assert_close(alone[name], checkpoint[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_in_calibration_ends_the_run_with_its_error(tmp_path, rank):
    root = write_mtd(tmp_path / "mtd")
    arguments = fit_ddad(root, tmp_path / "run", tmp_path / "cache", *TWO)
    arguments += [
        "--trainer.max_epochs=1",
        "--model.adaptation_epochs=0",
        "--data.val_fraction=0.4",
    ]
    process = subprocess.run(  # must end by itself, before pytest loses its patience
        [sys.executable, "-m", "tests.failing_process", str(rank), *arguments],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode != 0
    assert f"process {rank} lost its camera" in process.stderr
    calibrating = process.stderr.index("calibrating")
    assert "lost its camera" not in process.stderr[:calibrating]
    assert not (tmp_path / "run/final.ckpt").exists()


def test_two_processes_share_one_deadline(tmp_path):
    root = write_mtd(tmp_path / "mtd", train=12)
    arguments = fit_ddad(root, tmp_path / "run", tmp_path / "cache", *TWO)
    # Processes that took different numbers of steps would wait for each other without end.
    run_module("tests.clocked_process", *arguments, "--time=25s")
    training = json.loads((tmp_path / "run/training.json").read_text())
    assert training["adapt/steps"] <= training["denoise/steps"]
    assert training["denoise/images"] == 2 * 4 * training["denoise/steps"]
    assert (tmp_path / "run/metrics.json").exists()
