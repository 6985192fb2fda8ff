"""Nothing that a run has done is lost, and nothing it did not do is taken for its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from lightning_ad.cli import main
from lightning_ad.detector.checkpoint import read_checkpoint
from lightning_ad.experiment.run_folder import RunFolder
from tests.checkpoints import assert_same_weights, stopped_in_second_epoch
from tests.fakes import texture, write, write_mtd
from tests.shrunk import QUIET

pytestmark = pytest.mark.whole
AVERAGED = ["--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"]


def other_images(folder: Path) -> Path:
    """Other photographs under the same names."""
    root = write_mtd(folder)
    for number, file in enumerate(sorted(root.rglob("*.jpg"))):
        write(file, texture(1000 + number, *cv2.imread(str(file)).shape[:2]))
    return root


@pytest.mark.parametrize("change", ["images", "averaging", "guidance"])
@pytest.mark.parametrize("config", ["kept", "lost"])
def test_an_interrupted_phase_goes_on_only_with_what_it_began_with(
    arguments, tmp_path, change, config
):
    with stopped_in_second_epoch("denoise"):
        main(arguments("run"))
    if config == "lost":
        (tmp_path / "run/config.yaml").unlink()
    more, named = {
        "images": ([f"--data.root={other_images(tmp_path / 'other')}"], "the training images"),
        "averaging": (AVERAGED, "trainer.callbacks.*EMAWeightAveraging"),
        "guidance": (["--model.guidance=4"], "guidance: 3.0 -> 4.0"),
    }[change]
    with pytest.raises(SystemExit, match=named):
        main(arguments("run", *more))
    assert (tmp_path / "run/config.yaml").exists() == (config == "kept")


def test_a_checkpoint_that_does_not_say_its_settings_needs_their_file(
    arguments, finished, tmp_path
):
    for file in [*(tmp_path / "run").glob("*.ckpt"), *(tmp_path / "run/resume").glob("*.ckpt")]:
        content = torch.load(file, weights_only=True)
        del content["trained_with"]  # as earlier versions wrote it
        torch.save(content, file)
    main(arguments("run"))
    with pytest.raises(SystemExit, match=r"guidance: 3.0 -> 4.0"):
        main(arguments("run", "--model.guidance=4"))
    (tmp_path / "run/config.yaml").unlink()
    with pytest.raises(SystemExit, match=r"config.yaml is missing"):
        main(arguments("run"))


def test_the_same_images_elsewhere_are_no_other_images(arguments, finished, tmp_path):
    (tmp_path / "mtd").rename(tmp_path / "moved")
    main(arguments("run", f"--data.root={tmp_path / 'moved'}"))


@pytest.mark.parametrize("command", ["fit", "test"])
def test_results_are_not_replaced_by_those_of_other_images(arguments, finished, tmp_path, command):
    before = (tmp_path / "run/metrics.json").read_bytes()
    other = f"--data.root={other_images(tmp_path / 'other')}"
    again = ["test", f"--ckpt_path={tmp_path / 'run/final.ckpt'}", *QUIET, other]
    with pytest.raises(SystemExit, match=r"the training images|of other test images"):
        main(arguments("run", other) if command == "fit" else again)
    assert (tmp_path / "run/metrics.json").read_bytes() == before
    if command == "test":
        main([*again, f"--run_dir={tmp_path / 'apart'}"])
        assert (tmp_path / "apart/metrics.json").read_bytes() != before


@pytest.mark.parametrize("name", ["final.ckpt", "denoise.ckpt", "resume/denoise.ckpt"])
def test_flipped_bytes_of_a_checkpoint_are_found(arguments, finished, tmp_path, name):
    file = tmp_path / "run" / name
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    file.write_bytes(content)
    if name == "final.ckpt":
        with pytest.raises(ValueError, match=r"final.ckpt is damaged"):
            main(["test", f"--ckpt_path={file}", *QUIET])
    else:
        (tmp_path / "run/final.ckpt").unlink()
        longer = "--trainer.max_epochs=4" if "resume" in name else "--trainer.max_epochs=3"
        with pytest.raises(ValueError, match=rf"{file.name} is damaged"):
            main(arguments("run", longer))


def test_a_checkpoint_is_whole_while_the_next_one_is_written(arguments, tmp_path, monkeypatch):
    """As after a kill in the middle of the writing, whatever folder is for temporary files."""
    last = tmp_path / "run/resume/denoise.ckpt"
    original, seen = torch.save, []

    def save(content, file, **options):
        original(content, file, **options)
        if last.exists() and Path(file).parent == last.parent:
            assert Path(file) != last  # beside it, on the same disk
            seen.append(read_checkpoint(last)["epoch"])

    monkeypatch.setattr(torch, "save", save)
    main(arguments("run"))
    assert len(seen) >= 3


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_a_folder_in_use_names_who_uses_it(arguments, finished, tmp_path, command):
    program = f"import fcntl, sys; f = open({str(tmp_path / 'run/lock')!r}, 'r+'); "
    program += "fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    predict = ["predict", f"--ckpt_path={tmp_path / 'run/final.ckpt'}", *QUIET]
    with pytest.raises(SystemExit, match=rf"run is in use by process {os.getpid()} on"):
        main(arguments("run") if command == "fit" else predict)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    main(arguments("run") if command == "fit" else predict)


def test_a_lock_ends_with_its_process_though_its_children_live_on(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; "
        "from lightning_ad.experiment.run_folder import RunFolder; "
        f"lock = RunFolder(Path({str(tmp_path)!r})).lock(); "
        "child = os.fork(); "
        "(print(child, flush=True), os._exit(0)) if child else sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    child = int(process.stdout.readline())
    process.wait()
    os.kill(child, 0)  # is alive
    RunFolder(tmp_path).lock().close()
    process.stdin.close()


def test_a_run_trained_on_ends_as_if_it_had_been_longer_from_the_start(
    arguments, finished, tmp_path
):
    main(arguments("run", "--trainer.max_epochs=5"))
    main(arguments("long", "--trainer.max_epochs=5"))
    assert_same_weights(tmp_path / "run/final.ckpt", tmp_path / "long/final.ckpt")
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 5
    with pytest.raises(SystemExit, match=r"trainer.max_epochs: 5 -> 3"):
        main(arguments("run"))


def test_a_run_without_its_optimizer_cannot_be_trained_on_and_says_so(
    arguments, finished, tmp_path
):
    (tmp_path / "run/resume/denoise.ckpt").unlink()
    with pytest.raises(SystemExit, match=r"cannot be trained on to trainer.max_epochs"):
        main(arguments("run", "--trainer.max_epochs=5"))


WATCHING = "--trainer.callbacks+="


@pytest.mark.parametrize(
    "callback",
    [
        [f"{WATCHING}EarlyStopping", "--trainer.callbacks.monitor=denoise/val_loss"],
        [f"{WATCHING}EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
        [f"{WATCHING}ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"],
        [f"{WATCHING}ModelCheckpoint", "--trainer.callbacks.monitor=adapt/val_loss"],
    ],
)
def test_callbacks_of_the_users_watch_their_phase_and_rest_in_others(arguments, tmp_path, callback):
    main(arguments("run", *callback))
    main(arguments("run", *callback))
    assert "test/mean/image_auroc" in json.loads((tmp_path / "run/metrics.json").read_text())


@pytest.mark.parametrize("monitor", ["denois/val_loss", "train_loss"])
def test_a_callback_that_watches_nothing_is_found_before_training(arguments, tmp_path, monitor):
    stopping = [f"{WATCHING}EarlyStopping", f"--trainer.callbacks.monitor={monitor}"]
    with pytest.raises(ValueError, match=rf"watches {monitor}, .* denoise/val_loss"):
        main(arguments("run", *stopping))
    assert not (tmp_path / "run").exists()


def test_folders_of_the_user_are_written_with_a_tilde(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    main(arguments("run", "--run_dir=~/runs/x"))
    main(["test", "--ckpt_path=~/runs/x/final.ckpt", "--run_dir=~/tests/x", *QUIET])
    file = tmp_path / "home/small.yaml"
    file.write_text("run_dir: ~/runs/y\n")
    main(arguments("run", "--run_dir=unused")[:1] + [
        argument for argument in arguments("run")[1:] if not argument.startswith("--run_dir")
    ] + ["--config=~/small.yaml"])  # fmt: skip
    for name in ("runs/x/final.ckpt", "tests/x/metrics.json", "runs/y/metrics.json"):
        assert (tmp_path / "home" / name).exists()
    assert not (tmp_path / "~").exists()
