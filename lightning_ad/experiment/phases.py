"""What is said about a phase of training, and when it counts as finished."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lightning_ad.callbacks.preemption import TRY_AGAIN
from lightning_ad.detector.detection import Phase
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


def require_lengths_count(phases: Sequence[Phase], options: Mapping[str, Any]) -> None:
    """Refuse a Trainer's length where each phase has one of its own."""
    given = [n for n, none in (("max_epochs", None), ("max_steps", -1)) if options.get(n) != none]
    if given and phases and all(phase.epochs is not None for phase in phases):
        lengths = ", ".join(f"'{phase.name}' {phase.epochs}" for phase in phases)
        raise ValueError(
            f"trainer.{given[0]} would be ignored, as the model's settings give each phase its "
            f"epochs ({lengths}): leave one of the two out"
        )


def announce_processes(trainer: Trainer, images: int) -> None:
    """Say what several processes, each with so many images, mean for a training step."""
    processes = trainer.world_size
    if processes > 1:
        announce(
            f"{processes} processes x {images} = {processes * images} images a step; the learning "
            "rate is as configured, not scaled"
        )
