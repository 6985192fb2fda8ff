"""The folder of a run: where it keeps what it finished, and what may go on in it.

What a run has finished is written there: ``<phase>.ckpt`` after each phase, ``final.ckpt`` after
calibration. A checkpoint is either whole or absent, so a run may be killed at any moment and the
same command goes on from the last finished epoch. A test of a finished run with other settings than
the run's has a folder of its own in there, as numbers and ``config.yaml`` belong together.
"""

import copy
import itertools
import shutil
from pathlib import Path
from typing import Any

import yaml

from data_modules.problems import DataError
from data_modules.reading.texts import read_yaml
from lightning_ad.detector.detector import Phase
from lightning_ad.reports.files import write_whole

IRRELEVANT_TO_RESULTS = ("root", "num_workers", "cache", "cache_dir", "eval_batch_size")
"""Data settings that a resumed run may change."""

TRAINING = (
    "accumulate_grad_batches",
    "fast_dev_run",
    "gradient_clip_val",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "overfit_batches",
    "precision",
)
"""Trainer settings that decide what a run trains."""

FILES = ("*.ckpt", "metrics.json", "metrics.csv", "scores.csv", "objective.json", "training.json")
FOLDERS = ("resume", "panels", "predictions*", "wandb", "test-*")
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

    def open(self, config: dict[str, Any]) -> None:
        """Write the configuration."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise SystemExit(f"run_dir {self.path} cannot be written: {error}") from error

    def require_same(self, config: dict[str, Any]) -> None:
        """A `SystemExit` if the folder holds a run that was trained with other settings."""
        checkpoints = [*self.path.glob("*.ckpt"), *self.resume.glob("*.ckpt")]
        if not checkpoints or not self.config.exists():
            return  # nothing was trained with whatever settings there were
        changed = _differences(_of_results(self.settings()), _of_results(config))
        if not changed:
            return
        trained = next((path for path in checkpoints if path.parent == self.path), None)
        keep = f", to keep trained weights with --ckpt_path {trained}" if trained else ""
        raise SystemExit(
            f"{self.path} holds a run with other settings:\n  "
            + "\n  ".join(changed)
            + f"\nchoose another --run_dir{keep}, or start again with --overwrite=true"
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
        return _differences(_of_test(self.settings()), _of_test(config))

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


def _of_results(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what a run trains."""
    trainer = config.get("trainer", {})
    data = copy.deepcopy(config["data"])
    for name in IRRELEVANT_TO_RESULTS:
        data["init_args"].pop(name, None)
    return {
        "model": config["model"],
        "data": data,
        "seed_everything": config["seed_everything"],
        "trainer": {name: trainer.get(name) for name in TRAINING},
    }


def _of_test(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide the numbers of a test with given weights."""
    settings = copy.deepcopy(_of_results(config))
    for name in ("batch_size", "seed"):
        settings["data"]["init_args"].pop(name, None)
    autoencoder = settings["model"]["init_args"].get("autoencoder")
    if autoencoder:  # a checkpoint names it, where the run's configuration leaves it open
        autoencoder["init_args"].pop("architecture", None)
    settings["trainer"] = {"precision": settings["trainer"]["precision"]}
    return settings | {"evaluation": config.get("evaluation")}


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Lines ``key: old -> new`` for the leaves in which two configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in _differences(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if old == new else [f"{key}: {old} -> {new}"]
