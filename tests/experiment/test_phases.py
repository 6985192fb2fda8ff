"""A whole experiment goes on where it was stopped, and what it leaves suffices."""

import json
import re
import time
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from data_modules import DataError
from lightning_ad import load_detector
from lightning_ad.callbacks.preemption import TRY_AGAIN
from lightning_ad.cli import main
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.experiment.phases import require_finished
from lightning_ad.networks import FeaturePyramid
from tests.checkpoints import assert_same_weights, stopped_in_second_epoch, weights
from tests.fakes import texture, write, write_mtd, write_mvtec
from tests.forked import started
from tests.shrunk import QUIET, fit_ddad

pytestmark = pytest.mark.whole


AVERAGED = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"]


@pytest.mark.parametrize("phase", ["denoise", "adapt"])
def test_a_stopped_run_with_averaged_weights_goes_on_averaging(arguments, tmp_path, phase):
    main(arguments("whole", *AVERAGED))
    with stopped_in_second_epoch(phase):
        main(arguments("stopped", *AVERAGED))
    assert (tmp_path / f"stopped/resume/{phase}.ckpt").exists()
    main(arguments("stopped", *AVERAGED))
    assert_same_weights(tmp_path / "whole/final.ckpt", tmp_path / "stopped/final.ckpt")
    assert (tmp_path / "stopped/metrics.json").read_text() != ""


def test_averaged_weights_are_those_that_a_phase_ends_with(arguments, tmp_path, monkeypatch):
    seen = []

    def watch(self, *_):
        if self.phase == "denoise":
            seen.append(self.denoiser.unet.conv_in.weight.detach().clone())

    monkeypatch.setattr(AnomalyDetector, "on_train_batch_end", watch)
    main(arguments("run", *AVERAGED))
    average = seen[0]
    for weight in seen[1:]:
        average = 0.5 * average + 0.5 * weight
    ended_with = weights(tmp_path / "run/denoise.ckpt")["denoiser.unet.conv_in.weight"]
    torch.testing.assert_close(ended_with, average)
    assert not torch.allclose(ended_with, seen[-1])


OWN = [
    "--trainer.max_epochs=null",
    "--model.training_epochs=2",
    "--model.adaptation_epochs=3",
    "--model.adaptation_batch_size=2",
]


def test_a_phase_has_epochs_and_batches_of_its_own(arguments, tmp_path, monkeypatch):
    seen = []

    def watch(self, outputs, batch, batch_idx):
        seen.append((self.phase, self.current_epoch, len(batch["image"])))

    monkeypatch.setattr(AnomalyDetector, "on_train_batch_end", watch)
    main(arguments("whole", *OWN))
    epochs = {("denoise", epoch, 4) for epoch in range(2)}
    assert set(seen) == epochs | {("adapt", epoch, 2) for epoch in range(3)}
    training = json.loads((tmp_path / "whole/training.json").read_text())
    for name in ("denoise", "adapt"):
        images = [size for phase, _, size in seen if phase == name]
        assert training[f"{name}/images"] == sum(images)
        assert training[f"{name}/steps"] == len(images)
    with stopped_in_second_epoch("adapt"):
        main(arguments("stopped", *OWN))
    main(arguments("stopped", *OWN))
    assert_same_weights(tmp_path / "whole/final.ckpt", tmp_path / "stopped/final.ckpt")


@pytest.mark.parametrize(("steps", "epochs"), [(7, -1), (8, 9)])
def test_a_stopped_run_of_so_many_steps_ends_like_a_whole_one(tmp_path, steps, epochs):
    root = write_mtd(tmp_path / "mtd", train=12)  # two steps an epoch
    options = [f"--trainer.max_steps={steps}", f"--trainer.max_epochs={epochs}"]
    options.append("--model.adaptation_epochs=0")

    def run(name):
        main(fit_ddad(root, tmp_path / name, tmp_path / "cache", *options))

    run("whole")
    with stopped_in_second_epoch("denoise"):
        run("stopped")
    run("stopped")
    assert_same_weights(tmp_path / "whole/final.ckpt", tmp_path / "stopped/final.ckpt")
    for name in ("whole", "stopped"):
        training = json.loads((tmp_path / name / "training.json").read_text())
        assert training["denoise/steps"] == steps


@pytest.mark.parametrize(("option", "value"), [("max_epochs", 3), ("max_steps", 5)])
def test_a_length_that_no_phase_would_follow_is_refused(arguments, tmp_path, option, value):
    with pytest.raises(ValueError, match=rf"trainer.{option} would be ignored.*'denoise' 2"):
        main(arguments("run", *OWN, f"--trainer.{option}={value}"))
    assert not (tmp_path / "run").exists()


def test_killing_a_run_in_each_phase_loses_no_finished_phase(arguments, tmp_path):
    run = tmp_path / "run"
    written: dict[str, int] = {}
    for sign in ("resume/denoise.ckpt", "resume/adapt.ckpt", "adapt.ckpt"):
        process = started(arguments("run"))
        while not (run / sign).exists() and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        for phase, moment in written.items():
            assert (run / phase).stat().st_mtime_ns == moment, f"{phase} was trained again"
        written |= {p.name: p.stat().st_mtime_ns for p in run.glob("*.ckpt") if p.stem != "final"}
    process = started(arguments("run"))
    process.join()
    assert process.exitcode == 0
    assert written and all((run / p).stat().st_mtime_ns == m for p, m in written.items())
    assert (run / "final.ckpt").exists() and (run / "metrics.json").exists()


def test_good_images_alone_are_enough(tmp_path):
    for i in range(6):
        write(tmp_path / f"part/train/good/{i}.png", texture(i, 20, 20))
    options = ["--data=Folder", f"--data.root={tmp_path / 'part'}"]
    main(fit_ddad(tmp_path, tmp_path / "run", tmp_path / "cache", *options))
    detector = load_detector(tmp_path / "run/final.ckpt")
    detection = detector.detect(torch.zeros(2, 3, 16, 16), torch.tensor([0, -1]))
    assert detection.anomaly_map.shape == (2, 1, 16, 16)
    assert torch.isfinite(detector.decision.image_threshold(torch.tensor([0, -1]))).all()


def test_weights_from_another_order_of_categories_keep_their_own(tmp_path):
    root = write_mvtec(tmp_path / "mvtec")
    thresholds = []
    for run, category, more in (
        ("first", "[grid,bottle]", []),
        ("second", "[bottle,grid]", [f"--ckpt_path={tmp_path / 'first/denoise.ckpt'}"]),
    ):
        data = ["--data=MVTecAD", f"--data.root={root}", f"--data.category={category}"]
        options = ["--model.adaptation_epochs=0", "--data.val_fraction=0.3", *more]
        main(fit_ddad(root, tmp_path / run, tmp_path / "cache", *data, *options))
        thresholds.append(weights(tmp_path / run / "final.ckpt")["calibration.image_threshold"])
    assert thresholds[0][0] != thresholds[0][1]
    torch.testing.assert_close(thresholds[1], thresholds[0])


def test_a_run_that_starts_from_another_takes_only_what_the_first_phase_trained(
    arguments, finished, tmp_path
):
    for name in ("denoise", "adapt", "final"):
        main(arguments(f"from_{name}", f"--ckpt_path={tmp_path / 'run' / name}.ckpt"))
        assert_same_weights(tmp_path / f"from_{name}/final.ckpt", tmp_path / "run/final.ckpt")


def test_a_used_run_folder_refuses_other_settings_by_name(arguments, finished, tmp_path):
    kept = rf"to keep trained weights with --ckpt_path .*{tmp_path.name}/run/\w+.ckpt"
    with pytest.raises(SystemExit, match=r"guidance: 3.0 -> 4.0") as refused:
        main(arguments("run", "--model.guidance=4"))
    assert re.search(kept, str(refused.value))
    with pytest.raises(SystemExit, match=r"trainer.limit_train_batches: None -> 1"):
        main(arguments("run", "--trainer.limit_train_batches=1"))
    main(arguments("run", "--model.guidance=4", "--overwrite=true"))


def test_starting_again_removes_nothing_but_the_run_and_only_with_data_at_hand(
    arguments, finished, tmp_path
):
    (tmp_path / "run/notes.txt").write_text("mine")
    write_mtd(tmp_path / "run/data")
    final = (tmp_path / "run/final.ckpt").stat().st_mtime_ns
    with pytest.raises(DataError, match="no folder"):
        main(arguments("run", "--overwrite=true", f"--data.root={tmp_path / 'absent'}"))
    assert (tmp_path / "run/final.ckpt").stat().st_mtime_ns == final
    main(arguments("run", "--overwrite=true", f"--data.root={tmp_path / 'run/data'}"))
    assert (tmp_path / "run/notes.txt").read_text() == "mine"
    assert (tmp_path / "run/final.ckpt").stat().st_mtime_ns > final


def test_starting_again_starts_from_the_pretrained_weights(arguments, tmp_path, monkeypatch):
    loaded = []
    original = FeaturePyramid.load_pretrained
    monkeypatch.setattr(
        FeaturePyramid, "load_pretrained", lambda self: (loaded.append(1), original(self))
    )
    main(arguments("run"))
    main(arguments("run"))  # finished: only tested
    assert len(loaded) == 1
    main(arguments("run", "--overwrite=true"))
    assert len(loaded) == 2


def test_settings_may_change_while_nothing_is_trained(arguments, tmp_path):
    with pytest.raises(ValueError, match="adaptation pairs images of a batch"):
        main(arguments("run", "--data.batch_size=1"))
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    assert not (tmp_path / "cache").exists()  # before an image is decoded
    main(arguments("run"))
    assert (tmp_path / "run/final.ckpt").exists()


def test_a_phase_that_ran_out_of_time_or_numbers_is_not_finished():
    detector = torch.nn.Linear(2, 2)
    trainer = SimpleNamespace(callbacks=[Timer(duration={"seconds": 0})])
    with pytest.raises(SystemExit) as stop:
        require_finished(trainer, detector, "phase 1")
    assert stop.value.code == TRY_AGAIN
    trainer = SimpleNamespace(callbacks=[Timer(duration={"seconds": 9})])
    require_finished(trainer, detector, "phase 1")
    detector.bias.data[1] = float("nan")
    with pytest.raises(FloatingPointError, match=r"phase 1: 1 parameters became .*bias"):
        require_finished(trainer, detector, "phase 1")


def test_a_phase_whose_time_is_over_goes_on_with_more(arguments, tmp_path):
    long = arguments("run", "--trainer.max_epochs=100000")
    with pytest.raises(SystemExit) as stop:
        main([*long, "--trainer.max_time=00:00:00:01"])
    assert stop.value.code == TRY_AGAIN
    assert [path.name for path in (tmp_path / "run").rglob("*.ckpt")] == ["denoise.ckpt"]
    assert (tmp_path / "run/resume/denoise.ckpt").exists()


def test_checkpoints_that_do_not_serve_are_named(arguments, finished, tmp_path):
    (tmp_path / "text.ckpt").write_text("no weights")
    torch.save({"a": 1}, tmp_path / "foreign.ckpt")
    for name, message in (
        ("absent.ckpt", "there is no checkpoint"),
        ("text.ckpt", "no readable checkpoint"),
        ("foreign.ckpt", "no readable checkpoint"),
        ("run/denoise.ckpt", "weights of a phase"),
    ):
        for command in ("test", "predict"):
            with pytest.raises((SystemExit, ValueError, OSError), match=message) as refused:
                main([command, f"--ckpt_path={tmp_path / name}", *QUIET])
            assert name in str(refused.value)
    wider = arguments("wider", "--model.denoiser.base=16")
    with pytest.raises(ValueError, match=r"run/denoise.ckpt holds other networks"):
        main([*wider, f"--ckpt_path={tmp_path / 'run/denoise.ckpt'}"])


def test_a_broken_configuration_is_named(tmp_path):
    file = tmp_path / "broken.yaml"
    for content, message in (
        (b"a: [1", "no readable YAML"),
        (b"", "holds no settings"),
        ("# für Teil 7".encode("latin-1"), "not UTF-8.*Latin-1"),
        ("seed_everything: 0".encode("utf-16"), "not UTF-8.*UTF-16"),
        (b"seed_everything: 0\nseed_everything: 1", "given twice"),
    ):
        file.write_bytes(content)
        for option in ("--config", "--model"):
            if option == "--config" or message != "holds no settings":
                with pytest.raises(SystemExit, match=rf"broken.yaml.* {message}"):
                    main(["fit", f"{option}={file}"])


def test_statistics_of_normal_images_travel_with_the_checkpoint(arguments, tmp_path):
    options = ["--data.val_fraction=0.5", "--model.adaptation_epochs=0"]
    main(arguments("plain", *options))
    relative = ["--model.standardize=true", "--model.top_share=0.05"]
    main(arguments("run", *options, *relative, f"--ckpt_path={tmp_path / 'plain/denoise.ckpt'}"))
    scores = (tmp_path / "run/scores.csv").read_text()
    assert scores != (tmp_path / "plain/scores.csv").read_text()
    state = weights(tmp_path / "run/final.ckpt")
    assert {"calibration.pixel_mean", "calibration.feature_deviation"} <= state.keys()
    main(["test", f"--ckpt_path={tmp_path / 'run/final.ckpt'}", *QUIET])
    assert (tmp_path / "run/scores.csv").read_text() == scores
    kept = load_detector(tmp_path / "run/final.ckpt")
    assert kept.standardize and kept.top_share == 0.05
