"""``lightning sweep``: run a W&B sweep file on this machine, without W&B's servers.

Optuna (Akiba et al., KDD 2019) chooses the settings, each trial is the file's own command, one at
a time on every GPU. All there is to know stands in the sweep's folder, so the same command goes on
after an interruption: finished trials stay, an unfinished one continues in its own run folder.
"""

import argparse
import fcntl
import json
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from lightning_ad.callbacks.preemption import TRY_AGAIN, end_on_signals
from lightning_ad.commands.paths import path
from lightning_ad.commands.sweep_file import Sweep, SweepError, decoded

POLL_SECONDS = 0.5
log = logging.getLogger(__name__)


class Runner:
    """Runs trials until ``count`` have ended, one at a time on each device."""

    def __init__(self, sweep: Sweep, folder: Path, count: int, overrides: Sequence[str]) -> None:
        self.sweep, self.folder, self.count, self.overrides = sweep, folder, count, overrides
        self.grid = sweep.grid()
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = _sole_user(folder)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = JournalFileBackend(str(folder / "trials.log"))
        self.study = optuna.create_study(
            study_name=sweep.metric,
            storage=JournalStorage(journal),
            sampler=sweep.sampler(),
            direction=StudyDirection[sweep.goal.upper()],
            load_if_exists=True,
        )
        self.interrupted = self.study.get_trials(states=(TrialState.RUNNING,))
        self.running: dict[str, tuple[int, subprocess.Popen]] = {}

    def run(self) -> None:
        """Run what is missing; when this ends early, so do the trials, with their checkpoints."""
        devices = _devices()
        try:
            while self._start_on(devices) or self.running:
                time.sleep(POLL_SECONDS)
                for device, (number, process) in list(self.running.items()):
                    if process.poll() is not None:
                        del self.running[device]
                        self._tell(number, process.returncode)
        finally:
            for _, process in self.running.values():
                process.terminate()
            for _, process in self.running.values():
                process.wait()

    def run_dir(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.folder / f"trial-{number:03d}"

    def _start_on(self, devices: list[str]) -> bool:
        """Start a trial on each free device; whether any was started."""
        started = False
        for device in devices:
            values = None if device in self.running else self._next()
            if values is not None:
                self.running[device] = (values[0], self._start(*values, device))
                started = True
        return started

    def _next(self) -> tuple[int, dict[str, Any]] | None:
        """Number and values of the next trial, an interrupted one first; None at the end."""
        if self.interrupted:
            trial = self.interrupted.pop(0)
            return trial.number, decoded(trial.params)
        number = len(self.study.get_trials(deepcopy=False))
        if number >= self.count or (self.grid is not None and number >= len(self.grid)):
            return None
        if self.grid is not None:
            self.study.enqueue_trial(self.grid[number])
        new = self.study.ask(self.sweep.space)
        return new.number, decoded(new.params)

    def _start(self, number: int, values: dict[str, Any], device: str) -> subprocess.Popen:
        run_dir = self.run_dir(number)
        command = self.sweep.trial_command(values, *self.overrides, f"--run_dir={run_dir}")
        chosen = ", ".join(f"{name}={value}" for name, value in values.items())
        log.info("trial %d on %s: %s", number, device, chosen)
        own_programs = str(Path(sys.executable).parent)
        environment = os.environ | {"PATH": f"{own_programs}{os.pathsep}{os.environ['PATH']}"}
        if device != "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = device
        with run_dir.with_suffix(".log").open("a") as output:
            output.write(f"{shlex.join(command)}\n")
            output.flush()
            return subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[self.lock.fileno()],  # the folder stays taken while a trial is alive
            )

    def _tell(self, number: int, status: int) -> None:
        if status == TRY_AGAIN:
            log.warning("trial %d was told to end: the same command goes on with it", number)
            return
        if status:
            self.study.tell(number, state=TrialState.FAIL)
            file = self.run_dir(number).with_suffix(".log")
            if not self.study.get_trials(states=(TrialState.COMPLETE,)):
                end = "\n".join(file.read_text().splitlines()[-15:])
                raise SweepError(f"trial {number} failed and none has succeeded ({file}):\n{end}")
            log.warning("trial %d failed: see %s", number, file)
            return
        run_dir, name = self.run_dir(number), self.sweep.metric
        found = metrics_of(run_dir)
        value = found.get(name)
        if value is None:
            self.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.tell(number, value)
            log.info("trial %d: %s %.4f", number, name, value)
        if name not in found:  # nor will any other trial have it
            names = ", ".join(found) or "nothing"
            raise SweepError(
                f"{run_dir} has no {name}, it has: {names}; objective/... needs --objective=true "
                "in the sweep's command"
            )
        if value is None:
            log.warning("trial %d failed: its %s is undefined, see %s", number, name, run_dir)


def metrics_of(run_dir: Path) -> dict[str, float | None]:
    """The metrics that a finished run wrote, None for an undefined one."""
    found: dict[str, Any] = {}
    for file in ("metrics.json", "objective.json"):
        if (run_dir / file).exists():
            found |= json.loads((run_dir / file).read_text())
    return {name: v for name, v in found.items() if name.startswith(("test/", "objective/"))}


def _sole_user(folder: Path) -> IO[str]:
    """Lock the folder; trials hold the lock too, so one that outlived its sweep is waited for."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waiting for a sweep in %s, or a trial that it left behind, to end", folder)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def _devices() -> list[str]:
    """Names of the GPUs that this process may use, or one CPU."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = allowed.split(",") if allowed else map(str, range(torch.cuda.device_count()))
    return [name for name in names if torch.cuda.is_available()] or ["cpu"]


def trials_table(runner: Runner) -> Table:
    """All trials: settings, state, objective, result of the test; the best objective in bold."""
    study, metric = runner.study, runner.sweep.metric
    best = study.best_trial.number if study.get_trials(states=(TrialState.COMPLETE,)) else None
    trials = study.get_trials()
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    tested = f"test/mean/{metric.rpartition('/')[2]}"
    columns = list(dict.fromkeys([metric, tested]))  # one, where the test is the objective
    table = Table(title=f"{len(trials)} trials")
    for title in (
        "trial",
        *(name.removeprefix("model.") for name in names),
        *columns,
        "state",
        "minutes",
    ):
        table.add_column(title, overflow="fold")
    for trial in trials:
        params, found = decoded(trial.params), metrics_of(runner.run_dir(trial.number))
        cells = [str(trial.number), *(_short(params.get(name, "-")) for name in names)]
        cells += ["-" if found.get(c) is None else f"{found[c]:.4f}" for c in columns]
        cells += [trial.state.name.lower(), _minutes(trial)]
        table.add_row(*cells, style="bold" if trial.number == best else None)
    return table


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _minutes(trial: FrozenTrial) -> str:
    return f"{trial.duration.total_seconds() / 60:.1f}" if trial.duration else "-"


def main(arguments: Sequence[str]) -> None:
    """Run ``lightning sweep``."""
    parser = argparse.ArgumentParser(
        "lightning sweep",
        description="Run a W&B sweep file on all GPUs of this machine; the same command goes on.",
        epilog="What follows -- is passed on to every trial.",
    )
    parser.add_argument("--config", type=path, required=True, help="W&B sweep file")
    parser.add_argument("--count", type=int, required=True, help="trials in all")
    parser.add_argument("--run_dir", type=path, help="default: runs/sweeps/<name of the file>")
    parser.add_argument(
        "--allow_test_labels", action="store_true", help="permit an objective test/..."
    )
    own, overrides = list(arguments), []
    if "--" in own:
        own, overrides = own[: own.index("--")], own[own.index("--") + 1 :]
    options = parser.parse_args(own)
    end_on_signals()
    folder = options.run_dir or Path("runs/sweeps") / options.config.stem
    try:
        sweep = Sweep.read(options.config, options.allow_test_labels)
        runner = Runner(sweep, folder, options.count, overrides)
        runner.run()
    except SweepError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on")
    screen = Console(markup=False, emoji=False)
    screen.print(trials_table(runner))
    if not runner.study.get_trials(states=(TrialState.COMPLETE,)):
        sys.exit(f"no trial succeeded: see the logs in {folder}; a larger --count tries others")
    best = runner.study.best_trial
    screen.print(f"best: trial {best.number} in {runner.run_dir(best.number)}", soft_wrap=True)
