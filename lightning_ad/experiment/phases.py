"""A whole experiment: train each phase, calibrate, test; and go on where an earlier run stopped."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.preemption import TRY_AGAIN
from lightning_ad.detector.checkpoint import detector_checkpoint, load_weights
from lightning_ad.detector.detector import AnomalyDetector, Phase
from lightning_ad.experiment.calibrate import calibrate
from lightning_ad.experiment.run_folder import RunFolder

MakeTrainer = Callable[[Phase | str], Trainer]
"""Builds the Trainer of a phase, or one to ``calibrate`` or ``test``."""


@rank_zero_only
def announce(message: str) -> None:
    """Tell the user, once however many processes run, what happens next."""
    logging.getLogger(__name__).info(message)


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
    a checkpoint of the method, the first phase counts as finished with what it trains in there.
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
    phases = detector.phases()
    if start and not phases:
        raise ValueError(f"{type(detector).__name__} has no phase that could start from {start}")
    detector.load_pretrained()
    for number, phase in enumerate(phases, 1):
        title = f"phase {number} of {len(phases)}, '{phase.name}'"
        if run.finished(phase).exists():
            announce(f"{title}: finished before, weights from {run.finished(phase)}")
            load_weights(detector, run.finished(phase))
            continue
        if start and number == 1:
            announce(f"{title}: weights from {start}")
            detector.enter_phase(phase.name)
            load_weights(detector, start, detector.trained())
            continue
        last = run.unfinished(phase)
        announce(f"{title}: {f'going on from {last}' if last.exists() else 'starting'}")
        detector.enter_phase(phase.name)
        trainer = make_trainer(phase)
        _announce_processes(trainer, datamodule)
        resume = str(_readable(last)) if last.exists() else None
        # Optimizer and callback states are more than weights; the file is this run's own.
        trainer.fit(detector, datamodule=datamodule, ckpt_path=resume, weights_only=False)
        _require_finished(trainer, detector, title)
        save_weights(trainer, detector, run.finished(phase))
        # Buffers, such as running means, are a process's own until all take the saved ones.
        load_weights(detector, run.finished(phase))
        if trainer.is_global_zero:
            last.unlink(missing_ok=True)
        trainer.strategy.barrier()


def _readable(checkpoint: Path) -> Path:
    """The last epoch's checkpoint, if it can be read."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=False, mmap=True)
    except Exception as error:
        raise ValueError(
            f"{checkpoint} cannot be read ({error}): remove it to start its phase again"
        ) from error
    return checkpoint


def _require_finished(trainer: Trainer, detector: AnomalyDetector, title: str) -> None:
    """Refuse to call a phase finished that ran out of time or of numbers."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    if any(seconds is not None and seconds <= 0 for seconds in left):
        announce(f"{title}: trainer.max_time is over; the same command goes on, with more time")
        raise SystemExit(TRY_AGAIN)
    broken = [n for n, p in detector.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise FloatingPointError(
            f"{title}: {len(broken)} parameters ended as no numbers, the first {broken[0]}: "
            "lower the learning rate or train in 32-true precision"
        )


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
