"""Sweep files are W&B's own; `lightning sweep` runs them, survives a kill, and shuns labels."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest
import yaml

from lightning_ad.commands.sweep import main
from lightning_ad.commands.sweep_file import Sweep, SweepError, decoded
from tests.fakes import write_mtd
from tests.shrunk import REPOSITORY, fit_ddad

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pydantic's, about its own names
    sweeps = pytest.importorskip("sweeps")  # W&B's schema and samplers

FILES = sorted((REPOSITORY / "experiments/sweeps").glob("*.yaml"))

PYTHON = sys.executable
TRIAL = """#!{python}
# Stands in for 'lightning': writes what it was asked for as its objective, alone on its GPU.
import json, os, pathlib, sys, time
options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:] if "=" in word)
folder = pathlib.Path(options["run_dir"])
folder.mkdir(exist_ok=True)
gpu = folder.with_name("gpu-" + os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
gpu.touch(exist_ok=False)
with (folder / "starts").open("a") as starts:
    starts.write("started\\n")
while not pathlib.Path(options["until"]).exists():
    time.sleep(0.01)
gpu.unlink(missing_ok=True)
if options.get("x") == "broken":
    sys.exit("x is broken")
value = None if options["x"] == "nan" else float(options["x"])
(folder / "objective.json").write_text(json.dumps({{"objective/image_auroc": value}}))
tested = float(options.get("tested", 0.5))
(folder / "metrics.json").write_text(json.dumps({{"test/mean/image_auroc": tested, "images": 9}}))
"""


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_sweep_files_satisfy_the_schema_and_the_sampler_of_wandb(file):
    content = yaml.safe_load(file.read_text())
    assert sweeps.schema_violations_from_proposed_config(content) == []
    run = sweeps.next_run(sweeps.SweepConfig(content), [])
    assert run.config.keys() == content["parameters"].keys()
    command = Sweep.read(file).trial_command({k: v["value"] for k, v in run.config.items()})
    assert command[:3] == ["/usr/bin/env", "lightning", "fit"]
    assert len(command) == 3 + 3 + len(run.config)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_sampled_settings_are_options_of_the_experiment(file, monkeypatch, capsys):
    from lightning_ad.cli import main as lightning

    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    sweep = Sweep.read(file)
    trial = optuna.create_study(sampler=sweep.sampler()).ask(sweep.space)
    command = sweep.trial_command(decoded(trial.params), "--print_config")
    with pytest.raises(SystemExit) as stop:
        lightning(command[2:])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["run_dir"] == f"runs/sweeps/{file.stem}/abc123" and config["objective"]
    for name, chosen in decoded(trial.params).items():
        section, *path = name.split(".")
        value = config[section]
        for key in path:
            value = value["init_args"][key]
        assert value == chosen


def write_sweep(folder: Path, **changes) -> Path:
    """A small sweep whose trials take next to no time."""
    content = {
        "method": "random",
        "metric": {"name": "objective/image_auroc", "goal": "maximize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}, "until": {"value": "/"}},
        "command": ["${env}", "lightning", "fit", "${args}"],
    } | changes
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def fast(tmp_path, monkeypatch):
    """A program `lightning` that ends at once, and the folder of the sweep."""
    program = tmp_path / "bin/lightning"
    program.parent.mkdir()
    program.write_text(TRIAL.format(python=sys.executable))
    program.chmod(0o755)
    # The sweep looks beside its own Python first.
    monkeypatch.setattr(sys, "executable", str(program.parent / "python"))
    monkeypatch.setattr("lightning_ad.commands.sweep.POLL_SECONDS", 0.02)
    return tmp_path


def run(folder, count, *more, **changes):
    file = write_sweep(folder, **changes)
    main([f"--config={file}", f"--count={count}", f"--run_dir={folder / 'sweep'}", *more])


def objectives(folder):
    return {
        file.parent.name: json.loads(file.read_text())["objective/image_auroc"]
        for file in (folder / "sweep").glob("*/objective.json")
    }


def test_the_best_of_all_trials_is_named(fast, capsys):
    run(fast, 4)
    found = objectives(fast)
    assert len(found) == 4 and len(set(found.values())) == 4
    best = max(found, key=found.__getitem__)
    printed = capsys.readouterr().out
    assert f"best: trial {int(best[-3:])} in {fast / 'sweep' / best}" in printed
    assert f"{found[best]:.4f}" in printed


def test_finished_trials_are_not_run_again(fast):
    run(fast, 2)
    before = {file: file.stat().st_mtime_ns for file in (fast / "sweep").glob("*/objective.json")}
    run(fast, 3)
    assert len(objectives(fast)) == 3
    assert all(file.stat().st_mtime_ns == moment for file, moment in before.items())


def test_a_grid_is_walked_once(fast):
    run(fast, 9, method="grid", parameters={"x": {"values": [1, 2, 3]}, "until": {"value": "/"}})
    assert sorted(objectives(fast).values()) == [1, 2, 3]


def test_bayes_goes_where_the_objective_is_high(fast):
    run(fast, 25, method="bayes")
    values = [value for _, value in sorted(objectives(fast).items())]
    assert sum(values[-8:]) / 8 > sum(values[:10]) / 10


def test_each_gpu_has_one_trial_at_a_time(fast, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    second = fast / "sweep/trial-001/starts"
    run(fast, 4, "--", f"--until={second}")  # the first goes on when the second has begun
    assert len(objectives(fast)) == 4


def test_a_sweep_that_can_only_fail_stops_with_the_trials_error(fast):
    parameters = {"x": {"value": "broken"}, "until": {"value": "/"}}
    with pytest.raises(SystemExit, match=r"(?s)trial 0 failed and none has succeeded.*x is broken"):
        run(fast, 3, parameters=parameters)
    assert not (fast / "sweep/trial-001").exists()
    with pytest.raises(SystemExit, match="no trial succeeded: see the logs in"):
        run(fast, 1, parameters=parameters)  # again: nothing is left to try


def test_one_failed_trial_does_not_end_a_sweep(fast, capsys):
    parameters = {"x": {"values": [0.5, "broken", 0.7]}, "until": {"value": "/"}}
    for _ in range(2):
        run(fast, 3, method="grid", parameters=parameters)
    assert objectives(fast) == {"trial-000": 0.5, "trial-002": 0.7}
    assert (fast / "sweep/trial-001/starts").read_text().count("started") == 1  # not tried again


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"metric": {"name": "test/mean/image_auroc"}},
            "labels of the test set.*allow_test_labels",
        ),
        ({"metric": {"name": "val_loss"}}, "objective/image_auroc needs no labels"),
        ({"method": "simulated annealing"}, "grid, random, bayes: simulated annealing"),
        ({"parameters": {}}, "lacks parameters"),
        ({"parameters": {"x": {"low": 1}}}, "parameter x needs value, values, or min and max"),
        ({"method": "grid"}, "parameter x: a grid needs values"),
        ({"metric": {"name": "objective/x", "goal": "up"}}, "minimize or maximize, not up"),
        ({"metric": "objective/image_auroc"}, "lacks metric"),
        ({"parameters": {"x": 3}}, "parameter x needs value, values, or min and max"),
        ({"parameters": {"x": {"min": 0, "max": "high"}}}, "parameter x needs value"),
        ({"parameters": {"x": {"min": 0, "max": 1, "distribution": "normal"}}}, "not normal"),
        ({"command": ["${env}", "${program}", "${args}"]}, "command has ..program.*envvar"),
    ],
)
def test_a_wrong_sweep_file_is_refused(fast, changes, message):
    with pytest.raises(SystemExit, match=f"(?s){message}"):
        run(fast, 1, **changes)
    assert objectives(fast) == {}


def test_test_labels_may_be_asked_for_by_name(tmp_path):
    file = write_sweep(tmp_path, metric={"name": "test/mean/image_auroc", "goal": "maximize"})
    with pytest.raises(SweepError):
        Sweep.read(file)
    assert Sweep.read(file, allow_test_labels=True).metric == "test/mean/image_auroc"


def test_a_metric_that_no_run_writes_is_named_with_those_it_does(fast):
    for name in ("objective/auroc", "test/mean/auroc"):
        known = f"{name.removesuffix('auroc')}image_auroc"
        with pytest.raises(SystemExit, match=f"has no {name}, it has: {known}"):
            run(fast, 1, metric={"name": name, "goal": "maximize"})
    assert not (fast / "sweep").exists()  # no trial was needed to find out


def test_a_run_without_the_objective_ends_the_sweep_but_not_for_ever(fast):
    metric = {"name": "objective/pixel_auroc", "goal": "maximize"}
    with pytest.raises(SystemExit, match="trial-000 has no objective/pixel_auroc, it has: "):
        run(fast, 2, metric=metric)
    with pytest.raises(SystemExit, match="trial-001 has no objective/pixel_auroc"):
        run(fast, 2, metric=metric)


@pytest.mark.parametrize("undefined", ["first", "second"])
def test_an_undefined_objective_fails_that_trial_only(fast, capsys, undefined):
    values = ["nan", 0.7] if undefined == "first" else [0.7, "nan"]
    parameters = {"x": {"values": values}, "until": {"value": "/"}}
    for _ in range(2):  # the failed one is not tried again
        run(fast, 3, method="grid", parameters=parameters)
        assert "best: trial" in capsys.readouterr().out
    assert sorted((fast / "sweep").glob("*/starts")) == [
        fast / "sweep" / name / "starts" for name in ("trial-000", "trial-001")
    ]
    assert all(len(f.read_text().split()) == 1 for f in (fast / "sweep").glob("*/starts"))


def test_the_result_of_the_test_stands_beside_the_objective(fast, capsys):
    run(fast, 1, "--", "--tested=0.1234")
    assert "0.1234" in capsys.readouterr().out


@pytest.mark.parametrize(
    "written, low, high, log",
    [
        ("{min: 1e-4, max: 1e-2}", 1e-4, 1e-2, False),
        ("{distribution: log_uniform_values, min: 1e-5, max: 1e-3}", 1e-5, 1e-3, True),
        ("{min: 2, max: 5}", 2, 5, False),
    ],
)
def test_numbers_are_read_however_they_are_written(tmp_path, written, low, high, log):
    file = write_sweep(tmp_path, parameters={"x": "RANGE"})
    file.write_text(file.read_text().replace("RANGE", written))
    space = Sweep.read(file).space["x"]
    assert (space.low, space.high, space.log) == (low, high, log)


def test_a_command_is_filled_in_as_wandbs_agent_does_it(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "runs/here")
    words = [
        "${env}",
        "${interpreter}",
        "x.py",
        "--at=${envvar:WHERE}/${envvar:NOWHERE}",
        "${args}",
    ]
    file = write_sweep(tmp_path, command=words)
    values = {"x": 0.5, "layers": [1, 2], "on": True}
    wandbs = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    options = wandbs.create_sweep_command_args(
        {"args": {k: {"value": v} for k, v in values.items()}}
    )
    filled = wandbs.create_sweep_command(list(words))
    expected = ["/usr/bin/env", "python", *filled[2:-1], *options["args"], "--more"]
    assert Sweep.read(file).trial_command(values, "--more") == expected


@pytest.mark.whole
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_sweep_of_three_trials_goes_on(fast, number):
    run(fast, 1)
    folder, held = fast / "sweep", fast / "held until now"
    finished = (folder / "trial-000/objective.json").stat().st_mtime_ns
    environment = {**os.environ, "PATH": f"{fast / 'bin'}:{os.environ['PATH']}"}
    program = "import sys; from lightning_ad.commands import sweep; "
    program += "sys.executable = sys.argv.pop(1); sweep.main(sys.argv[1:])"
    arguments = [f"--config={fast / 'sweep.yaml'}", f"--run_dir={folder}", "--count=3"]
    arguments += ["--", f"--until={held}"]
    command = [PYTHON, "-c", program, sys.executable, *arguments]
    process = subprocess.Popen(command, env=environment, cwd=REPOSITORY)
    while not (folder / "trial-001/starts").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.wait()
    assert list(objectives(fast)) == ["trial-000"]

    for gpu in folder.glob("gpu-*"):
        gpu.unlink()  # of a trial that could not say that it had ended
    held.touch()
    main(arguments)  # waits for a trial that outlived its sweep
    assert sorted(objectives(fast)) == ["trial-000", "trial-001", "trial-002"]
    assert (folder / "trial-000/objective.json").stat().st_mtime_ns == finished
    starts = [(folder / f"trial-00{i}/starts").read_text().count("started") for i in range(3)]
    assert starts == [1, 2, 1]


@pytest.mark.whole
def test_one_trial_of_the_sweep_on_guidance_runs(tmp_path):
    write_mtd(tmp_path / "mtd")
    _, _, *overrides = fit_ddad(tmp_path / "mtd", tmp_path, tmp_path / "cache")
    overrides += ["--trainer.max_epochs=1", "--model.adaptation_epochs=0"]
    command = ["-m", "lightning_ad", "sweep", "--config=experiments/sweeps/ddad_guidance.yaml"]
    process = subprocess.run(
        [PYTHON, *command, "--count=1", f"--run_dir={tmp_path / 'sweep'}", "--", *overrides],
        cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    trial = tmp_path / "sweep/trial-000"
    value = json.loads((trial / "objective.json").read_text())["objective/image_auroc"]
    assert f"{value:.4f}" in process.stdout and (trial / "metrics.json").exists()
    (study,) = optuna.get_all_study_summaries(storage=journal(tmp_path / "sweep"))
    settings = yaml.safe_load((trial / "config.yaml").read_text())["model"]["init_args"]
    assert settings["guidance"] == study.best_trial.params["model.guidance"]
    assert study.best_trial.value == value


def journal(folder):
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "trials.log"))
    return optuna.storages.JournalStorage(backend)
