"""What a checkpoint was trained with: settings and files, kept in it and compared before going on.

A configuration file beside a checkpoint can be lost, edited or overwritten; what the checkpoint
itself carries cannot differ from what it was made of.
"""

import copy
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from data_modules import AnomalyDataModule

IRRELEVANT_TO_RESULTS = (
    "root", "num_workers", "cache", "cache_dir", "eval_batch_size", "max_megapixels",
)  # fmt: skip
"""Data settings that a resumed run may change."""

AS_BEFORE = "squash"
"""The data's `fit` of runs from before there was a choice, which name none."""

TRAINING = (
    "accumulate_grad_batches",
    "fast_dev_run",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "limit_train_batches",
    "max_epochs",
    "max_steps",
    "overfit_batches",
    "precision",
)
"""Trainer settings that decide what a run trains."""

ONLY_WATCHING = (
    "DeviceStatsMonitor",
    "EarlyStopping",
    "LearningRateMonitor",
    "ModelCheckpoint",
    "ModelSummary",
    "OnExceptionCheckpoint",
    "RichModelSummary",
    "RichProgressBar",
    "TQDMProgressBar",
    "ThroughputMonitor",
    "Timer",
)
"""Lightning's callbacks that leave weights as they are, which may come and go."""


def origin_of(config: dict[str, Any], data: AnomalyDataModule) -> dict[str, Any]:
    """What a run with this configuration and data trains with, in plain values."""
    return {
        "version": version("lightning-ad"),
        "settings": of_results(config),
        "root": str(data.root),
        "files": data.files_hash("train"),
    }


def origin_in(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint was trained with; None if it does not say."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return content.get("trained_with")
    except Exception as error:
        raise ValueError(
            f"{checkpoint} cannot be read ({type(error).__name__}: {error}): restore it from a "
            "copy, or remove it to make it again"
        ) from error


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Lines that say how an origin differs from another; more epochs are no difference."""
    epochs = [origin["settings"]["trainer"]["max_epochs"] or 0 for origin in (old, new)]
    lines = differences(old["settings"], new["settings"])
    if 0 < epochs[0] < epochs[1]:
        lines = [line for line in lines if not line.startswith("trainer.max_epochs: ")]
    if old["files"] != new["files"]:
        before = "" if old["root"] == new["root"] else f", from {old['root']}"
        lines.append(f"the training images in {new['root']} are others than those before{before}")
    return lines


def of_results(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what a run trains."""
    trainer = config.get("trainer", {})
    data = copy.deepcopy(config["data"])
    for name in IRRELEVANT_TO_RESULTS:
        data["init_args"].pop(name, None)
    if data["init_args"].get("fit") == AS_BEFORE:
        del data["init_args"]["fit"]
    return {
        "model": copy.deepcopy(config["model"]),
        "data": data,
        "seed_everything": config["seed_everything"],
        "trainer": {name: trainer.get(name) for name in TRAINING}
        | {"callbacks": list(_acting(trainer.get("callbacks") or []))},
    }


def of_test(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide the numbers of a test with given weights."""
    settings = of_results(config)
    for name in ("batch_size", "seed"):
        settings["data"]["init_args"].pop(name, None)
    autoencoder = settings["model"]["init_args"].get("autoencoder")
    if autoencoder:  # a checkpoint names it, where the run's configuration leaves it open
        autoencoder["init_args"].pop("architecture", None)
    settings["trainer"] = {"precision": settings["trainer"]["precision"]}
    decision = {
        "threshold": config.get("threshold"),
        "smallest_region": config.get("smallest_region", 1),
    }
    evaluation = dict(config.get("evaluation") or {})
    if evaluation.get("at") == "map":  # as in runs from before there was a choice
        del evaluation["at"]
    return settings | decision | {"evaluation": evaluation}


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Lines ``key: old -> new`` for the leaves in which two configurations differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [
            line
            for name in names
            for line in differences(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
        ]
    return [] if old == new else [f"{key}: {old} -> {new}"]


def _acting(callbacks: Iterable[dict[str, Any]] | dict[str, Any]) -> Iterable[dict[str, Any]]:
    """The callbacks that may change weights."""
    for callback in [callbacks] if isinstance(callbacks, dict) else callbacks:
        if callback["class_path"].split(".")[-1] not in ONLY_WATCHING:
            yield callback
