"""The folder of a run: where it keeps what it finished, and what may go on in it.

What a run has finished is written there: ``<phase>.ckpt`` after each phase, ``final.ckpt`` after
calibration. A checkpoint is either whole or absent, so a run may be killed at any moment and the
same command goes on from the last finished epoch. A test of a finished run with other settings than
the run's has a folder of its own in there, as numbers and ``config.yaml`` belong together.
"""

import fcntl
import itertools
import json
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import yaml

from data_modules.problems import DataError
from data_modules.reading.texts import read_yaml
from lightning_ad.detector.detection import Phase
from lightning_ad.experiment.origin import (
    changes,
    differences,
    of_results,
    of_test,
    origin_in,
)
from lightning_ad.reports.files import write_whole

FILES = (
    *("*.ckpt", "metrics.json", "metrics.csv", "scores.csv", "objective.json", "training.json"),
    *(
        "predictions.json",
        "report.json",
        "report.html",
        "regions.csv",
        "regions.coco.json",
        "unfinished-*.jsonl",
    ),
)
FOLDERS = (
    *(
        "resume",
        "checkpoints",
        "panels",
        "masks",
        "thumbnails",
        "predictions",
        "predictions-*",
        "wandb",
    ),
    "test-*",
)
"""What a run leaves behind, beside its configuration."""


class RunFolder:
    """Where a run keeps its checkpoints and results."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def final(self) -> Path:
        """The self-sufficient checkpoint: weights, calibration, categories, configuration."""
        return self.path / "final.ckpt"

    @property
    def metrics(self) -> Path:
        """The results of the test."""
        return self.path / "metrics.json"

    @property
    def resume(self) -> Path:
        """Folder of the last epoch's checkpoint of an unfinished phase, with optimizer state."""
        return self.path / "resume"

    @property
    def deadline(self) -> Path:
        """When an unfinished run has to end, if it was given a time."""
        return self.resume / "deadline"

    def finished(self, phase: Phase) -> Path:
        """Weights at the end of a phase."""
        return self.path / f"{phase.name}.ckpt"

    def unfinished(self, phase: Phase) -> Path:
        """The last epoch's checkpoint of a phase."""
        return self.resume / f"{phase.name}.ckpt"

    def settings(self) -> dict[str, Any]:
        """What `config` holds."""
        try:
            settings = read_yaml(self.config)
            settings["model"], settings["data"], settings["trainer"], settings["seed_everything"]
        except (DataError, KeyError, TypeError) as error:
            raise SystemExit(
                f"{self.config} is not as a run writes it ({type(error).__name__}: {error}): "
                "restore it, or choose another --run_dir"
            ) from error
        return settings

    def lock(self) -> IO[str]:
        """Take the folder for this process until the result is closed or the process ends.

        A `SystemExit` names the process that has it. Children, which may outlive a process that
        was killed, do not inherit it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise SystemExit(f"run_dir {self.path} cannot be written: {error}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise SystemExit(
                f"{self.path} is in use by {file.read() or 'another process'}: wait for it, or "
                "choose another --run_dir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, {' '.join(sys.argv)[:200]}")
        file.flush()
        return file

    def open(self, config: dict[str, Any]) -> None:
        """Write the configuration."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise SystemExit(f"run_dir {self.path} cannot be written: {error}") from error

    def checkpoints(self, phases: Sequence[Phase]) -> list[Path]:
        """Those that are there: of finished and unfinished phases, and the final one."""
        paths = [path(phase) for phase in phases for path in (self.finished, self.unfinished)]
        return [path for path in (*paths, self.final) if path.exists()]

    def require_same(self, origin: dict[str, Any], phases: Sequence[Phase]) -> None:
        """A `SystemExit` if a checkpoint in here was trained with other settings or images."""
        for path in self.checkpoints(phases):
            known = origin_in(path)
            if not known and not self.config.exists():
                raise SystemExit(
                    f"with which settings {path} was trained is not known, as {self.config} is "
                    "missing: restore that, or choose another --run_dir"
                )
            if known:
                changed = changes(known, origin)
            else:  # of before checkpoints carried it
                changed = differences(of_results(self.settings()), origin["settings"])
            if changed:
                keep = f", to keep trained weights with --ckpt_path {path}"
                raise SystemExit(
                    f"{self.path} holds a run with other settings:\n  "
                    + "\n  ".join(changed)
                    + f"\nchoose another --run_dir{keep if path.parent == self.path else ''}, "
                    "or start again with --overwrite=true"
                )

    def require_same_test(self, files: str) -> None:
        """A `SystemExit` if the results in here are of other test images."""
        if not self.metrics.exists():
            return
        try:
            known = json.loads(self.metrics.read_text()).get("test_files", files)
        except (ValueError, AttributeError) as error:
            raise SystemExit(f"{self.metrics} is not as a test writes it: {error}") from error
        if known != files:
            raise SystemExit(
                f"{self.metrics} is of other test images than those of data.root: give their test "
                "a --run_dir of its own, with --ckpt_path"
            )

    def for_test(self, config: dict[str, Any]) -> "RunFolder":
        """Where a test writes: here, or into a folder in here if the run has other settings."""
        candidates = (RunFolder(self.path / f"test-{n}") for n in itertools.count(1))
        return next(
            folder
            for folder in itertools.chain([self], candidates)
            if not folder.config.exists() or not folder.differences_in_test(config)
        )

    def differences_in_test(self, config: dict[str, Any]) -> list[str]:
        """Lines ``key: old -> new`` for what makes a test differ from the run's own."""
        return differences(of_test(self.settings()), of_test(config))

    def clear(self) -> None:
        """Remove what an earlier run left behind, and nothing else."""
        if not self.config.exists():
            return
        for pattern in FILES:
            for file in self.path.glob(pattern):
                file.unlink()
        for pattern in FOLDERS:
            for folder in self.path.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)
        self.config.unlink()
