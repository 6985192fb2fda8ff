"""The cluster scripts run to a result as SLURM and torchrun run them, and survive preemption."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_ad.cli import main
from tests.fakes import write_mtd, write_visa_raw
from tests.shrunk import REPOSITORY, fit_ddad

pytestmark = pytest.mark.whole

SCRIPTS = sorted((REPOSITORY / "experiments/cluster").glob("*.sh"))
PROGRAMS = Path(sys.executable).parent

SRUN = """#!{python}
# Starts the tasks of one node, hands signals on to them, returns the highest status.
import os, signal, subprocess, sys
command = sys.argv[1:]
while command[0].startswith("--"):
    del command[0]
places = range(int(os.environ["SLURM_NTASKS_PER_NODE"]))
tasks = [
    subprocess.Popen(command, env=os.environ | {{"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in places
]
signal.signal(signal.SIGUSR1, lambda number, frame: [task.send_signal(number) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = '#!/bin/sh\necho "$@" >> "$REQUEUED"\n'


@pytest.fixture
def cluster(tmp_path):
    """A folder with tiles and the environment of a job on one node of a cluster."""
    write_mtd(tmp_path / "mtd")
    for name, content in (("srun", SRUN.format(python=sys.executable)), ("scontrol", SCONTROL)):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(content)
        program.chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return tmp_path, {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{PROGRAMS}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
        "REQUEUED": str(tmp_path / "requeued"),
        "MASTER_PORT": str(port),
    }


def slurm(tasks: int) -> dict[str, str]:
    """What SLURM sets for a job of one node."""
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NAME": "lightning_ad",
        "SLURM_NODELIST": "localhost",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
    }


def command(script: str, folder: Path, run: Path, *more: str) -> list[str]:
    """A script with an experiment, shrunk."""
    _, config, *overrides = fit_ddad(folder / "mtd", run, folder / "cache", *more)
    file = REPOSITORY / "experiments/cluster" / script
    return ["bash", str(file), config.removeprefix("--config="), *overrides]


def start(arguments, environment, log):
    with log.open("a") as output:
        return subprocess.Popen(
            arguments, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def finish(arguments, environment, log):
    """Run a script to its end; its status."""
    return start(arguments, environment, log).wait()


def held_in_second_epoch(folder: Path) -> list[str]:
    """Options that hold a run in its second epoch for as long as there is a file `hold`."""
    (folder / "hold").touch()
    held = ["--trainer.callbacks+=tests.held.Held", f"--trainer.callbacks.file={folder / 'hold'}"]
    return ["--trainer.max_epochs=2", *held]


def wait_until_held(folder: Path, process: subprocess.Popen, log: Path) -> None:
    while (folder / "hold").read_text() != "held":
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.01)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_clean(script):
    subprocess.run(["bash", "-n", script], check=True)
    subprocess.run([PROGRAMS / "shellcheck", script], check=True)
    assert os.access(script, os.X_OK)


def test_a_preempted_job_of_two_tasks_is_requeued_and_goes_on(cluster):
    folder, environment = cluster
    run, log = folder / "run", folder / "log"
    options = held_in_second_epoch(folder)
    arguments = command("slurm_multinode.sh", folder, run, *options)
    environment |= slurm(tasks=2)
    job = start(arguments, environment, log)
    wait_until_held(folder, job, log)
    job.send_signal(signal.SIGUSR1)  # to the batch script alone, as --signal=B:USR1 asks for
    assert job.wait() == 75
    (folder / "hold").unlink()
    assert (folder / "requeued").read_text() == "requeue 4242\n"
    assert (run / "resume/denoise.ckpt").exists() and not (run / "final.ckpt").exists()
    shutil.copytree(run, folder / "alone")

    assert finish(arguments, environment, log) == 0, log.read_text()[-3000:]
    assert "going on from" in log.read_text()
    assert (run / "metrics.json").exists()

    # What two processes began one can end.
    main(fit_ddad(folder / "mtd", folder / "alone", folder / "cache", *options))
    assert (folder / "alone/metrics.json").exists()


def test_a_task_of_an_array_ends_on_sigterm_and_goes_on(cluster):
    folder, environment = cluster
    log, run = folder / "log", folder / "runs/mtd/seed-7"
    environment |= slurm(tasks=1) | {
        "SLURM_ARRAY_TASK_ID": "1",
        "CATEGORIES": "mtd",
        "SEEDS": "3 7",
        "RUNS": str(folder / "runs"),
    }
    options = held_in_second_epoch(folder)
    arguments = command("slurm_array.sh", folder, run, *options)
    arguments = [each for each in arguments if not each.startswith("--run_dir")]
    job = start(arguments, environment, log)
    wait_until_held(folder, job, log)
    for task in _processes_with(str(folder / "runs")):
        os.kill(task, signal.SIGTERM)  # to the task, as SLURM does when it preempts
    assert job.wait() == 75
    (folder / "hold").unlink()
    assert (folder / "requeued").read_text() == "requeue 4242\n"
    assert (run / "resume/denoise.ckpt").exists() and not (run / "final.ckpt").exists()
    words = (run / "config.yaml").read_text()
    main(
        fit_ddad(
            *(folder / "mtd", run, folder / "cache", *options),
            *("--data.category=mtd", "--seed_everything=7", "--trainer.devices=1"),
        )
    )
    assert (run / "metrics.json").exists()
    assert "seed_everything: 7" in words


def _processes_with(argument: str) -> list[int]:
    """The `lightning` processes among whose arguments one begins a run in a folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "fit" in words and not words[1].endswith(("srun", ".sh")) and "bash" not in words[0]:
            found += [int(folder.name)] if any(argument in word for word in words) else []
    return found


def asked(script: str, config: str, environment, *more: str) -> subprocess.CompletedProcess:
    """Run a script; the programs it starts only say what they were asked to do."""
    for name in ("srun", "torchrun"):
        program = Path(environment["PATH"].split(":")[0]) / name
        program.write_text('#!/bin/sh\necho "$@"\n')
        program.chmod(0o755)
    files = [str(REPOSITORY / f"experiments/{name}") for name in (f"cluster/{script}", config)]
    return subprocess.run(
        ["bash", *files, *more], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("task, category, seed", [(0, "candle", 3), (3, "pcb1", 7)])
def test_an_array_takes_the_categories_of_the_experiments_data_set(cluster, task, category, seed):
    folder, environment = cluster
    write_visa_raw(folder / "visa")
    environment |= slurm(tasks=1) | {"SLURM_ARRAY_TASK_ID": str(task), "SEEDS": "3 7"}
    root = f"--data.root={folder / 'visa'}"
    said = asked("slurm_array.sh", "ddad_visa.yaml", environment, root)
    assert said.returncode == 0, said.stderr
    assert f"--data.category={category} --seed_everything={seed} " in said.stdout
    assert f"--run_dir=runs/ddad_visa/{category}/seed-{seed} " in said.stdout


def test_a_task_beyond_the_array_says_so(cluster):
    folder, environment = cluster
    environment |= slurm(tasks=1) | {"SLURM_ARRAY_TASK_ID": "15"}
    root = f"--data.root={folder / 'mtd'}"
    said = asked("slurm_array.sh", "ddad_s_mtd.yaml", environment, root)
    assert said.returncode == 2 and "only 1 categories x 1 seeds" in said.stderr


def test_an_array_without_its_data_starts_nothing(cluster):
    folder, environment = cluster
    environment |= slurm(tasks=1) | {"SLURM_ARRAY_TASK_ID": "0"}
    said = asked("slurm_array.sh", "ddad_visa.yaml", environment, f"--data.root={folder / 'no'}")
    assert said.returncode != 0 and str(folder / "no") in said.stderr and not said.stdout


@pytest.mark.parametrize("script", ["slurm_array.sh", "slurm_multinode.sh"])
def test_a_script_for_slurm_says_so_elsewhere(cluster, script):
    said = asked(script, "ddad_mtd.yaml", cluster[1])
    assert said.returncode != 0 and not said.stdout
    assert "this is a script for sbatch" in said.stderr and "torchrun.sh" in said.stderr


def test_torchrun_starts_one_process_where_there_is_no_gpu(cluster):
    environment = cluster[1] | {"CUDA_VISIBLE_DEVICES": ""}
    said = asked("torchrun.sh", "ddad_mtd.yaml", environment, "--data.batch_size=8")
    assert said.returncode == 0 and not said.stderr
    assert "--nproc-per-node=1 " in said.stdout and "--trainer.devices=1 " in said.stdout
    assert said.stdout.endswith("--data.batch_size=8\n")


def test_torchrun_ends_with_a_result(cluster):
    folder, environment = cluster
    environment |= {"PROCESSES": "2"}
    short = ["--trainer.max_epochs=1", "--model.adaptation_epochs=0"]
    arguments = command("torchrun.sh", folder, folder / "run", *short)
    log = folder / "log"
    assert finish(arguments, environment, log) == 0, log.read_text()[-3000:]
    assert (folder / "run/metrics.json").exists()
    assert "2 processes x 4 = 8 images a step" in log.read_text()


def test_a_script_without_an_experiment_tells_its_usage():
    for script in SCRIPTS:
        process = subprocess.run(["bash", script], capture_output=True, text=True)
        assert process.returncode != 0 and "usage:" in process.stderr
