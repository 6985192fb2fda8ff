"""An offline W&B run holds what a person looks for: settings, metrics, panels, the checkpoint."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from wandb.proto.wandb_internal_pb2 import Record

from lightning_ad.experiment.tracking import describe_run, remember_run_id, wandb_run_id
from tests.fakes import write_mtd
from tests.shrunk import fit_ddad

pytestmark = pytest.mark.whole

BLOCK, HEADER = 32768, 7


def records(file: Path) -> list[Record]:
    """The records of a .wandb file, whose envelope is LevelDB's log format."""
    content, position, found, parts = file.read_bytes(), HEADER, [], b""
    while position + HEADER <= len(content):
        if BLOCK - position % BLOCK < HEADER:  # the rest of a block is too small for a header
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + HEADER])
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (1, 4):  # a whole record, or the last part of one
            found.append(Record.FromString(parts))
            parts = b""
    return found


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Folder of a finished run, and what W&B recorded of it."""
    folder = tmp_path_factory.mktemp("tracked")
    root = write_mtd(folder / "mtd")
    arguments = fit_ddad(root, folder / "run", folder / "cache", "--objective=true")
    arguments.remove("--trainer.logger=false")  # the experiment's own logger is W&B's
    # A process of its own: W&B remembers the first mode and account that a process saw.
    asked = ("WANDB_MODE", "WANDB_API_KEY")
    environment = {k: v for k, v in os.environ.items() if k not in asked}
    environment["HOME"] = str(folder)  # where an account would be remembered
    command = [sys.executable, "-m", "lightning_ad", *arguments, "--trainer.logger.log_model=true"]
    subprocess.run(command, env=environment, check=True)
    (file,) = (folder / "run/wandb").glob("offline-run-*/*.wandb")
    return folder / "run", records(file)


def updates(found, kind):
    """Values by key of all records of a kind that updates a dictionary."""
    parts = [getattr(record, kind) for record in found if record.WhichOneof("record_type") == kind]
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for part in parts
        for item in (part.item if kind == "history" else part.update)
    }


def test_the_resolved_configuration_is_in_the_run(tracked):
    run, found = tracked
    config = updates(found, "config")
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["denoiser"]["init_args"]["image_size"] == 16
    for section in ("model", "data", "seed_everything", "run_dir"):
        assert config[section] == written[section]
    assert config["fingerprint"] == json.loads((run / "metrics.json").read_text())["fingerprint"]


def test_metrics_of_the_mean_and_of_each_category_are_in_the_run(tracked):
    run, found = tracked
    history = updates(found, "history")
    metrics = json.loads((run / "metrics.json").read_text())
    measured = {key: value for key, value in metrics.items() if key.startswith("test/")}
    assert {"test/mean/image_auroc", "test/mtd/pixel_aupro"} < measured.keys()
    for key, value in measured.items():
        assert history[key] == pytest.approx(value, rel=1e-6), key


def test_the_objective_stands_beside_the_metrics(tracked):
    run, found = tracked
    objective = json.loads((run / "objective.json").read_text())
    history = updates(found, "history")
    assert "objective/image_auroc" in objective
    for key, value in objective.items():
        assert history[key] == pytest.approx(value, rel=1e-6), key


def test_losses_of_both_phases_and_of_the_held_out_images_are_in_the_run(tracked):
    _, found = tracked
    history = updates(found, "history")
    for phase in ("denoise", "adapt"):
        assert f"{phase}/val_loss" in history


def test_panels_are_in_the_run(tracked):
    run, found = tracked
    history = updates(found, "history")
    tested = len((run / "scores.csv").read_text().splitlines()) - 1  # all of few are shown
    assert history["panels/mtd/_type"] == "images/separated"
    assert history["panels/mtd/count"] == tested > 5
    (folder,) = (run / "wandb").glob("offline-run-*/files")
    assert all((folder / name).is_file() for name in history["panels/mtd/filenames"])


def test_what_the_report_shows_is_in_the_run(tracked):
    run, found = tracked
    history = updates(found, "history")
    report = json.loads((run / "report.json").read_text())
    (folder,) = (run / "wandb").glob("offline-run-*/files")

    def table(key):
        return json.loads((folder / history[f"{key}/path"]).read_text())

    curves = report["categories"]["mtd"]["curves"]
    assert {"image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro"} == curves.keys()
    for name, points in curves.items():
        assert table(f"curves/mtd/{name}_table")["data"] == points
    said = json.loads((run / "predictions.json").read_text())["images"]
    scores = {image["path"]: image["score"] for image in said}
    columns, rows = (table("images")[part] for part in ("columns", "data"))
    name, score = columns.index("name"), columns.index("score")
    assert {row[name]: row[score] for row in rows} == scores
    assert sorted(score for score, _ in table("scores/mtd_table")["data"]) == sorted(
        scores.values()
    )
    artifacts = [record.artifact for record in found]
    (images,) = (artifact for artifact in artifacts if artifact.name.endswith("-images"))
    pictures = [entry.path for entry in images.manifest.contents if entry.path.endswith(".jpg")]
    assert len(pictures) == len(scores)


def test_the_run_is_named_and_grouped_for_a_reader(tracked):
    run, found = tracked
    (described,) = [r.run for r in found if r.WhichOneof("record_type") == "run"][:1]
    assert described.display_name == "DDAD MTD all"
    assert described.run_group == "DDAD MTD" and described.job_type == "all"
    assert described.run_id == (run / "wandb_id").read_text()


def test_the_final_checkpoint_is_an_artifact_when_asked_for(tracked):
    run, found = tracked
    artifacts = [
        artifact for record in found
        for artifact in (record.artifact, record.request.log_artifact.artifact)
        if artifact.type == "model"
    ]  # fmt: skip
    assert [artifact.name for artifact in artifacts] == [f"{(run / 'wandb_id').read_text()}-final"]
    (entry,) = artifacts[0].manifest.contents
    assert entry.path == "final.ckpt" and entry.size == (run / "final.ckpt").stat().st_size


def test_a_resumed_run_keeps_its_id(tmp_path):
    first = wandb_run_id(tmp_path / "run")
    assert not (tmp_path / "run").exists()  # what fails to start leaves nothing behind
    remember_run_id(tmp_path / "run", first)
    assert wandb_run_id(tmp_path / "run") == first != wandb_run_id(tmp_path / "other")


def test_a_run_without_an_account_stays_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert describe_run(tmp_path, "1", "DDAD", "MTD", "mtd")["mode"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")  # what the user says counts
    assert describe_run(tmp_path, "1", "DDAD", "MTD", "mtd")["mode"] is None
