"""The command line as a user meets it: one checkpoint suffices, mistakes are named."""

import io
import json
import logging
import re
import shutil
import sys

import cv2
import pytest
import yaml
from huggingface_hub import constants

from data_modules import DataError
from lightning_ad.cli import COMMANDS, Messages, main
from lightning_ad.methods import DDAD
from tests.fakes import texture, write_mtd, write_mvtec
from tests.shrunk import REPOSITORY, fit_ddad


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run and the data it saw."""
    folder = tmp_path_factory.mktemp("finished")
    root = write_mtd(folder / "mtd")
    main(fit_ddad(root, folder / "run", folder / "cache"))
    return folder


QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.mark.whole
def test_the_checkpoint_alone_repeats_the_test(finished, tmp_path):
    shutil.copy(finished / "run/final.ckpt", tmp_path / "moved.ckpt")
    main(["test", f"--ckpt_path={tmp_path / 'moved.ckpt'}", *QUIET])
    first = json.loads((finished / "run/metrics.json").read_text())
    again = json.loads((tmp_path / "metrics.json").read_text())
    speed = {key for key in first if "second" in key}
    assert {k: v for k, v in first.items() if k not in speed} == {
        k: v for k, v in again.items() if k not in speed
    }


@pytest.mark.whole
def test_the_checkpoint_alone_scores_a_folder_of_images(finished, tmp_path):
    (tmp_path / "new/line 1").mkdir(parents=True)
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"new/line 1/{i}.png"), texture(i, 20, 30))
    shutil.copy(finished / "run/final.ckpt", tmp_path / "final.ckpt")
    checkpoint = f"--ckpt_path={tmp_path / 'final.ckpt'}"
    main(["predict", checkpoint, "--data=Folder", f"--data.root={tmp_path / 'new'}", *QUIET])
    lines = (tmp_path / "predictions/predictions.csv").read_text().splitlines()
    assert len(lines) == 4 and all(float(line.split(",")[1]) > 0 for line in lines[1:])


@pytest.mark.whole
def test_another_data_set_is_not_looked_for_where_the_checkpoints_lay(finished, tmp_path):
    checkpoint = f"--ckpt_path={finished / 'run/final.ckpt'}"
    with pytest.raises(ValueError, match=r"needs data\.root"):
        main(["predict", checkpoint, "--data=Folder", *QUIET])
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        main(
            ["predict", checkpoint, "--data=Folder", f"--data.root={tmp_path / 'nowhere'}", *QUIET]
        )


@pytest.mark.whole
def test_a_setting_of_the_checkpoints_model_can_be_changed(finished, tmp_path):
    shutil.copy(finished / "run/final.ckpt", tmp_path / "final.ckpt")
    main(["test", f"--ckpt_path={tmp_path / 'final.ckpt'}", "--model.guidance=9", *QUIET])
    before, after = ((folder / "scores.csv").read_text() for folder in (finished / "run", tmp_path))
    assert before != after


@pytest.mark.whole
def test_results_of_other_settings_leave_those_of_the_run_alone(finished, capsys):
    run = finished / "run"
    before = (run / "metrics.json").read_text()
    arguments = ["test", f"--ckpt_path={run / 'final.ckpt'}", *QUIET]
    for guidance in (9, 8, 9):
        main([*arguments, f"--model.guidance={guidance}"])
    assert (run / "metrics.json").read_text() == before
    assert sorted(path.name for path in run.glob("test-*")) == ["test-1", "test-2"]
    assert (
        yaml.safe_load((run / "test-2/config.yaml").read_text())["model"]["init_args"]["guidance"]
        == 8
    )
    main([*arguments, "--data.batch_size=3"])  # the same numbers
    assert (run / "metrics.json").read_text() != before  # but for its speed
    assert not (run / "test-3").exists()
    capsys.readouterr()
    main(["summarize", str(run), "--format=csv"])
    table = capsys.readouterr().out
    assert all(f"guidance: 3.0 -> {value}.0" in table for value in (8, 9))


@pytest.mark.whole
def test_the_resolved_configuration_lies_beside_the_checkpoint(finished):
    config = yaml.safe_load((finished / "run/config.yaml").read_text())
    assert config["model"]["init_args"]["denoiser"]["init_args"]["image_size"] == 16
    assert config["data"]["init_args"]["batch_size"] == 4


def test_interpolation_follows_the_command_line(capsys):
    config = f"--config={REPOSITORY / 'experiments/ddad_mvtec.yaml'}"
    with pytest.raises(SystemExit) as stop:
        main(["fit", config, "--data.category=cable", "--data.image_size=128", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["run_dir"] == "runs/ddad_mvtec/cable"
    assert printed["model"]["init_args"]["denoiser"]["init_args"]["image_size"] == 128


@pytest.mark.parametrize("key", ["--model.guidanse=4", "--data.batchsize=4", "--trainer.epochs=4"])
def test_a_misspelt_key_is_named(tmp_path, capsys, key):
    with pytest.raises(SystemExit) as stop:
        main(fit_ddad(tmp_path, tmp_path / "run", tmp_path, key))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert key.split("=")[0].split(".")[-1] in said and len(said.splitlines()) < 15
    assert not (tmp_path / "run").exists()


def test_a_precision_that_rounds_the_schedule_is_refused_before_training(tmp_path):
    arguments = fit_ddad(write_mtd(tmp_path / "mtd"), tmp_path / "run", tmp_path / "cache")
    with pytest.raises(ValueError, match=r"trainer.precision bf16-true .*bf16-mixed"):
        main([*arguments, "--trainer.precision=bf16-true"])
    assert not (tmp_path / "run/denoise.ckpt").exists()


@pytest.mark.whole
def test_a_checkpoint_of_another_method_is_refused(finished, tmp_path):
    config = REPOSITORY / "experiments/texture_mtd.yaml"
    arguments = [f"--config={config}", f"--ckpt_path={finished / 'run/final.ckpt'}", *QUIET]
    folders = [f"--data.root={finished / 'mtd'}", f"--data.cache_dir={finished / 'cache'}"]
    with pytest.raises(ValueError, match="is of DDAD, the configuration of TextureDDM"):
        main(["test", *arguments, *folders, f"--run_dir={tmp_path / 'run'}"])


@pytest.mark.whole
def test_other_categories_than_the_trained_ones_are_refused(finished, tmp_path):
    root = write_mvtec(tmp_path / "mvtec")
    checkpoint = f"--ckpt_path={finished / 'run/final.ckpt'}"
    arguments = ["--data=MVTecAD", f"--data.root={root}", "--data.category=bottle"]
    with pytest.raises(ValueError, match=r"trained on \['mtd'\].*\['bottle'\]"):
        main(["test", checkpoint, *arguments, f"--run_dir={tmp_path / 'run'}", *QUIET])


def test_testing_without_a_checkpoint_says_what_to_give(tmp_path):
    arguments = fit_ddad(tmp_path, tmp_path / "nowhere", tmp_path)[1:]
    with pytest.raises(SystemExit, match="give --ckpt_path"):
        main(["test", *arguments])


@pytest.mark.whole
def test_a_loss_that_is_not_finite_stops_and_keeps_finished_phases(tmp_path, monkeypatch):
    root = write_mtd(tmp_path / "mtd")
    monkeypatch.setattr(DDAD, "adapt_loss", lambda self, image: image.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan in phase 'adapt', epoch 0, step 0"):
        main(fit_ddad(root, tmp_path / "run", tmp_path / "cache"))
    assert (tmp_path / "run/denoise.ckpt").exists()


def test_the_list_of_commands_names_all_and_a_version_names_what_is_used(capsys):
    main(["--help"])
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines() if line[:2] == "  "] == list(COMMANDS)
    main(["--version"])
    named = re.findall(r"[\w-]+", capsys.readouterr().out)
    assert {"lightning-ad", "lightning", "torch"} <= set(named)
    with pytest.raises(SystemExit, match="there is no command 'train'"):
        main(["train"])


def test_help_begins_with_our_own_options_and_lists_our_own_classes(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    said = capsys.readouterr().out
    places = [said.index(f"--{name}") for name in ("run_dir", "model.help", "trainer.accelerator")]
    assert places == sorted(places)
    with pytest.raises(SystemExit):
        main(["fit", "--model.help", "DDAD"])
    said = capsys.readouterr().out
    assert "lightning_ad.networks.DiffusionUNet" in said and "torch.nn.Linear" not in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--data.root=nowhere", "no folder nowhere"),
        ("--model.features.weights=pretrained", "no answer from http://127.0.0.1:9"),
        ("--model.features.weights=no.safetensors", "no file no.safetensors"),
        ("--ckpt_path=no.ckpt", "there is no checkpoint no.ckpt"),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, capfd, change, message):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    arguments = fit_ddad(write_mtd(tmp_path / "mtd"), tmp_path / "run", tmp_path / "cache", change)
    arguments.remove("--trainer.logger=false")  # W&B's is the default
    with pytest.raises((ValueError, OSError), match=message):
        main(arguments)
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()
    assert "Retry" not in capfd.readouterr().err  # asked once


def test_photographs_of_ones_own_part_keep_their_shape(capsys):
    with pytest.raises(SystemExit):
        main(["fit", f"--config={REPOSITORY / 'experiments/own_part_cpu.yaml'}", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["fit"] == "pad"


def test_another_data_set_takes_neither_folder_nor_category_of_a_file(capsys):
    config = f"--config={REPOSITORY / 'experiments/ddad_mvtec.yaml'}"
    with pytest.raises(SystemExit):
        main(["fit", config, "--data=Folder", "--data.root=my_part", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    data = printed["data"]["init_args"]
    assert (data["root"], data["category"], data["batch_size"]) == ("my_part", "all", 32)
    assert data["fit"] == "pad"  # what a Folder takes, not what the file's data set does
    assert printed["run_dir"] == "runs/ddad_mvtec/all"


def test_messages_go_to_who_took_the_error_stream(monkeypatch):
    """As a progress bar does, which they would run into."""
    messages = Messages()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    messages.emit(logging.makeLogRecord({"msg": "%d of 83 flagged", "args": (5,)}))
    assert sys.stderr.getvalue() == "5 of 83 flagged\n"
