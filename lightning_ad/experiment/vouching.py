"""What false-alarm rates the normal images at hand can vouch for, said before hours are spent."""

import math
from collections import Counter

from data_modules import AnomalyDataModule
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.thresholds import images_for, percent


def vouched_for(detector: AnomalyDetector, data: AnomalyDataModule) -> str:
    """A sentence with the smallest rate, and what to change where the model's is smaller."""
    held_out = Counter(record.category for record in data.held_out_records())
    training = Counter(record.category for record in data.training_records())
    scored = held_out + training if detector.folds else held_out
    category, images = min(scored.items(), key=lambda item: item[1])
    of = f" of {category}" if len(scored) > 1 else ""
    said = (
        f"{images} {'cross-calibrated' if detector.folds else 'held-out'} images{of} vouch for "
        f"false-alarm rates of {percent(1 / (images + 1))} or more"
    )
    rate = detector.false_alarm_rate
    needed = images_for(rate)
    if images >= needed:
        return said
    total = held_out[category] + training[category]
    ways = [f"set model.false_alarm_rate to {_rounded_up(1 / (images + 1))} or more"]
    if not detector.folds and needed <= total // 2:
        ways.append(f"data.val_fraction to {_rounded_up(needed / total)}")
    may_fold = not (detector.folds or detector.phases() or detector.takes_whole)
    if may_fold and needed <= total:
        ways.append("model.folds to 5, which scores the training images as well")
    if needed > total:
        ways.append(f"use {needed} photographs or more")
    return (
        f"{said}, not for model.false_alarm_rate {percent(rate)}, which takes {needed}: "
        + ", or ".join(ways)
    )


def _rounded_up(share: float) -> str:
    return f"{math.ceil(1000 * share) / 1000:g}"
