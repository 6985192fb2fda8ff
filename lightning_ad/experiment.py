"""A whole experiment: train each phase, calibrate, test; and go on where an earlier run stopped.

What a run has finished is written in its folder: ``<phase>.ckpt`` after each phase, ``final.ckpt``
after calibration. A checkpoint is either whole or absent, so a run may be killed at any moment
and the same command goes on from the last finished epoch.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from data_modules import AnomalyDataModule
from lightning_ad.calibration import calibrate
from lightning_ad.detector import AnomalyDetector, Phase

MakeTrainer = Callable[[Phase | str], Trainer]
"""Builds the Trainer of a phase, or one to ``calibrate`` or ``test``."""


@rank_zero_only
def announce(message: str) -> None:
    """Tell the user, once however many processes run, what happens next."""
    logging.getLogger(__name__).info(message)


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


def run_experiment(
    detector: AnomalyDetector,
    datamodule: AnomalyDataModule,
    make_trainer: MakeTrainer,
    run: RunFolder,
    config: str,
    start: Path | None = None,
) -> None:
    """Train, calibrate and test ``detector``, skipping what ``run`` has finished.

    ``config`` is the YAML that `load_detector` needs to build the detector again. With ``start``,
    a checkpoint of the method, the first phase counts as finished with its weights.
    """
    detector.match_categories(datamodule.categories, "fit")
    if run.final.exists():
        announce(f"{run.final} is complete: going on to its test")
    else:
        _train(detector, datamodule, make_trainer, run, start)
        _calibrate(detector, datamodule, make_trainer, run, config)
    if not any(record.split == "test" for record in datamodule.records()):
        announce(f"no test images; '{run.final}' is ready for 'lightning predict'")
        return
    load_weights(detector, run.final)
    make_trainer("test").test(detector, datamodule=datamodule, verbose=False)
    announce(f"checkpoint: {run.final}")


def _train(
    detector: AnomalyDetector,
    datamodule: AnomalyDataModule,
    make_trainer: MakeTrainer,
    run: RunFolder,
    start: Path | None,
) -> None:
    detector.load_pretrained()
    phases = detector.phases()
    for number, phase in enumerate(phases, 1):
        title = f"phase {number} of {len(phases)}, '{phase.name}'"
        if run.finished(phase).exists():
            announce(f"{title}: finished before, weights from {run.finished(phase)}")
            load_weights(detector, run.finished(phase))
            continue
        if start and number == 1:
            announce(f"{title}: weights from {start}")
            load_weights(detector, start)
            continue
        last = run.unfinished(phase)
        announce(f"{title}: {f'going on from {last}' if last.exists() else 'starting'}")
        detector.enter_phase(phase.name)
        trainer = make_trainer(phase)
        _announce_processes(trainer, datamodule)
        resume = str(last) if last.exists() else None
        # Optimizer and callback states are more than weights; the file is this run's own.
        trainer.fit(detector, datamodule=datamodule, ckpt_path=resume, weights_only=False)
        save_weights(trainer, detector, run.finished(phase))
        if trainer.is_global_zero:
            last.unlink(missing_ok=True)
        trainer.strategy.barrier()


def _announce_processes(trainer: Trainer, datamodule: AnomalyDataModule) -> None:
    """Say what several processes mean for a training step."""
    processes, images = trainer.world_size, datamodule.batch_size  # type: ignore[attr-defined]
    if processes > 1:
        announce(
            f"{processes} processes x {images} = {processes * images} images a step; the learning "
            "rate is as configured, not scaled"
        )


def _calibrate(
    detector: AnomalyDetector,
    datamodule: AnomalyDataModule,
    make_trainer: MakeTrainer,
    run: RunFolder,
    config: str,
) -> None:
    announce("calibrating on held-out normal images")
    detector.phase = ""
    detector.requires_grad_(False)
    # Weights that were loaded may number the categories differently.
    detector.match_categories(datamodule.categories, "fit")
    trainer = make_trainer("calibrate")
    datamodule.trainer = trainer
    datamodule.prepare_data()
    datamodule.setup("fit")
    calibrate(detector, trainer, datamodule)
    save_weights(trainer, detector, run.final, config)


def save_weights(
    trainer: Trainer, detector: AnomalyDetector, path: Path, config: str | None = None
) -> None:
    """Write the detector's weights once, from the first process, whole or not at all.

    With ``config`` the checkpoint is self-sufficient: it also holds the frozen parts that phases
    leave out, and the configuration.
    """
    if trainer.is_global_zero:
        checkpoint = detector_checkpoint(detector, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(checkpoint, partial)
        partial.replace(path)
    trainer.strategy.barrier()


def detector_checkpoint(detector: AnomalyDetector, config: str | None) -> dict[str, Any]:
    """The content of a checkpoint of ours, as Lightning reads it (see `save_weights`)."""
    checkpoint: dict[str, Any] = {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": detector.state_dict(),
    }
    if config is None:
        detector.on_save_checkpoint(checkpoint)
    else:
        checkpoint |= {"method": type(detector).__name__, "categories": detector.categories}
        checkpoint["config"] = config
    return checkpoint


def load_weights(detector: AnomalyDetector, path: Path) -> None:
    """Load a checkpoint of the same method into ``detector``."""
    checkpoint = read_checkpoint(path)
    detector.on_load_checkpoint(checkpoint)
    detector.load_state_dict(checkpoint["state_dict"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ours; nothing in the file is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path} is no readable checkpoint of lightning_ad: {error}") from error


def load_detector(path: str | Path) -> AnomalyDetector:
    """A detector from its ``final.ckpt`` alone, in eval mode, ready to `detect`."""
    checkpoint = read_checkpoint(Path(path))
    if "config" not in checkpoint:
        raise ValueError(
            f"{path} is the checkpoint of a phase; the run's final.ckpt suffices alone"
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AnomalyDetector, "model")
    settings = {"model": yaml.safe_load(checkpoint["config"])["model"]}
    detector = parser.instantiate(parser.parse_object(settings)).model
    detector.on_load_checkpoint(checkpoint)
    detector.load_state_dict(checkpoint["state_dict"])
    return detector.eval()
