"""The folder of a run: where it keeps what it finished, and what may go on in it.

What a run has finished is written there: ``<phase>.ckpt`` after each phase, ``final.ckpt`` after
calibration. A checkpoint is either whole or absent, so a run may be killed at any moment and the
same command goes on from the last finished epoch.
"""

import copy
import shutil
from pathlib import Path
from typing import Any

import yaml

from lightning_ad.callbacks.results import write_whole
from lightning_ad.detector import Phase

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

FILES = ("*.ckpt", "metrics.json", "metrics.csv", "scores.csv", "objective.json")
FOLDERS = ("resume", "panels", "predictions", "wandb")
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

    def finished(self, phase: Phase) -> Path:
        """Weights at the end of a phase."""
        return self.path / f"{phase.name}.ckpt"

    def unfinished(self, phase: Phase) -> Path:
        """The last epoch's checkpoint of a phase."""
        return self.resume / f"{phase.name}.ckpt"

    def open(self, config: dict[str, Any]) -> None:
        """Write the configuration; a `SystemExit` if the folder holds a run that differs."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._require_same(config)
            write_whole(self.config, yaml.safe_dump(config, sort_keys=False))
        except OSError as error:
            raise SystemExit(f"run_dir {self.path} cannot be written: {error}") from error

    def _require_same(self, config: dict[str, Any]) -> None:
        checkpoints = [*self.path.glob("*.ckpt"), *self.resume.glob("*.ckpt")]
        if not checkpoints or not self.config.exists():
            return  # nothing was trained with whatever settings there were
        earlier = yaml.safe_load(self.config.read_text())
        changed = _differences(_of_results(earlier), _of_results(config))
        if not changed:
            return
        trained = next((path for path in checkpoints if path.parent == self.path), None)
        keep = f", to keep trained weights with --ckpt_path {trained}" if trained else ""
        raise SystemExit(
            f"{self.path} holds a run with other settings:\n  "
            + "\n  ".join(changed)
            + f"\nchoose another --run_dir{keep}, or start again with --overwrite=true"
        )

    def clear(self) -> None:
        """Remove what an earlier run left behind, and nothing else."""
        if not self.config.exists():
            return
        for pattern in FILES:
            for file in self.path.glob(pattern):
                file.unlink()
        for name in FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)
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
