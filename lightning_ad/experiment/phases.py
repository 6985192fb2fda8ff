"""What is said about a phase of training, and when it counts as finished."""

import logging

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from data_modules import AnomalyDataModule
from lightning_ad.callbacks.preemption import TRY_AGAIN
from lightning_ad.detector.detector import AnomalyDetector


@rank_zero_only
def announce(message: str) -> None:
    """Tell the user, once however many processes run, what happens next."""
    logging.getLogger(__name__).info(message)


def require_finished(trainer: Trainer, detector: AnomalyDetector, title: str) -> None:
    """Refuse to call a phase finished that ran out of time, or whose weights are not finite."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    if any(seconds is not None and seconds <= 0 for seconds in left):
        announce(f"{title}: trainer.max_time is over; the same command goes on, with more time")
        raise SystemExit(TRY_AGAIN)
    broken = [n for n, p in detector.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise FloatingPointError(
            f"{title}: {len(broken)} parameters became NaN or infinite, the first {broken[0]}: "
            "lower the learning rate or train in 32-true precision"
        )


def announce_processes(trainer: Trainer, datamodule: AnomalyDataModule) -> None:
    """Say what several processes mean for a training step."""
    processes, images = trainer.world_size, datamodule.batch_size  # type: ignore[attr-defined]
    if processes > 1:
        announce(
            f"{processes} processes x {images} = {processes * images} images a step; the learning "
            "rate is as configured, not scaled"
        )
