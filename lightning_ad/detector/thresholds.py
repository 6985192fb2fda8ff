"""Thresholds with a stated false-alarm rate, from scores of held-out normal images.

Split conformal prediction (Angelopoulos, Bates, arXiv 2107.07511): of new normal images at most
the stated share scores above. The scores stay in the checkpoint, so that another rate needs no
training.
"""

import math
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY, members

SCORES = "normal_scores"
"""Scores (N,) of normal images."""

PIXELS = "normal_pixels"
"""Order statistics (N, 1024) of their maps, the smallest value first and the largest last."""

CATEGORY = "normal_category"
"""The category (N,) of each of these images."""

HELD_OUT = "held_out"
"""The number of images that were held out."""


def conformal_quantile(scores: Tensor, false_alarm_rate: float) -> float:
    """Threshold above which at most ``false_alarm_rate`` of new normal scores fall.

    The ceil((n + 1)(1 - rate))-th smallest of the n calibration scores (arXiv 2107.07511, eq. 1).
    Too few scores for the rate give the largest one.
    """
    rank = math.ceil(round((len(scores) + 1) * (1 - false_alarm_rate), 9))  # 10 x 0.3 is 3
    return float(scores.sort().values[min(rank, len(scores)) - 1])


def require_decision(
    rate: float | None, threshold: float | None = None, smallest_region: int = 1
) -> None:
    """Raise a ValueError for numbers that decide nothing, or for a rate and a threshold."""
    if rate is not None and not 0 < rate < 1:
        raise ValueError(f"model.false_alarm_rate must lie between 0 and 1, got {rate}")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"the threshold must be a finite number, not {threshold}")
    if rate is not None and threshold is not None:
        raise ValueError(
            f"a false_alarm_rate of {rate:g} and a threshold of {threshold:g} exclude each other: "
            "give one of them"
        )
    if smallest_region < 1:
        raise ValueError(f"smallest_region must be at least 1 pixel, not {smallest_region}")


def threshold_of(calibration: Calibration, rate: float, category: int) -> float:
    """The image threshold of a rate, from the scores of a category's normal images.

    Warns if these are too few for it.
    """
    require_decision(rate)
    own = members(calibration[CATEGORY], category + 1)[category]
    scores = calibration[SCORES][own]
    for line in shortage(len(scores), rate):
        rank_zero_warn(line)
    return conformal_quantile(scores, rate)


def keep_scores(calibration: Calibration, scored: dict[str, Tensor], held_out: int) -> None:
    """Keep ``score`` (N,), ``pixels`` (N, 1024) and ``category`` (N,) of held-out normal images.

    ``held_out`` is how many there are; calibration may have seen fewer of them.
    """
    calibration[HELD_OUT] = torch.tensor(held_out)
    calibration[SCORES] = scored["score"]
    calibration[PIXELS] = scored["pixels"]
    calibration[CATEGORY] = scored["category"]


def normal_scores(calibration: Calibration, categories: list[str]) -> dict[str | None, list[float]]:
    """The scores of each category's held-out normal images; by None, all. Empty if not kept."""
    if CATEGORY not in calibration:
        return {}
    groups = members(calibration[CATEGORY], len(categories))
    scores = calibration[SCORES].float()
    names = [*categories, None]
    return {name: scores[group].tolist() for name, group in zip(names, groups, strict=True)}


def part_calibrated_on(calibration: Calibration) -> dict[str, str]:
    """``calibrated_on``, where that was less than all held-out images; else nothing."""
    if HELD_OUT not in calibration:
        return {}
    seen, held_out = len(calibration[CATEGORY]), int(calibration[HELD_OUT])
    return {"calibrated_on": f"{seen} of {held_out} held-out images"} if seen < held_out else {}


def set_thresholds(calibration: Calibration, categories: int, rate: float) -> None:
    """Set the thresholds (categories + 1,) of each category and, last, of all images together.

    The one of pixels is above the whole map of a new normal image, but for the same rate of images:
    of pixels alone, so many would exceed it that hardly an image were without some. The faint one
    is of pixels alone, for flagged images whose map stays below the other.
    """
    groups, pixels = members(calibration[CATEGORY], categories), calibration[PIXELS]
    for level, values in (
        ("image", calibration[SCORES]),
        ("pixel", pixels[:, -1]),
        ("faint", pixels),
    ):
        found = [conformal_quantile(values[group].flatten(), rate) for group in groups]
        calibration[f"{level}_threshold"] = torch.tensor(found)


def p_values(calibration: Calibration, score: Tensor, category: Tensor) -> Tensor:
    """Conformal p-values (B,) of scores (B,) of the categories (B,); NaN where none were kept.

    (1 + the number of the n normal scores that are as high or higher) / (n + 1), see arXiv
    2107.07511, section 6: at most a rate, if and only if the score is above that rate's threshold.
    """
    if CATEGORY not in calibration:
        return torch.full(score.shape, math.nan, dtype=torch.double)
    normal, kinds = calibration[SCORES].cpu(), calibration[CATEGORY].cpu()
    found = []
    for one, number in zip(score.float().cpu(), category.tolist(), strict=True):
        own = normal if number == UNKNOWN_CATEGORY else normal[kinds == number]
        found.append((1 + int((own >= one).sum())) / (1 + len(own)))
    return torch.tensor(found, dtype=torch.double)


def require_movable(checkpoint: dict[str, Any], rate: float) -> None:
    """Raise a ValueError where another rate is asked of a checkpoint that kept no scores."""
    state = checkpoint["state_dict"]
    stated = stated_rate(checkpoint)
    if stated not in (None, rate) and f"calibration.{CATEGORY}" not in state:
        raise ValueError(
            f"model.false_alarm_rate is {rate:g}, but the checkpoint has the thresholds of "
            f"{stated:g} and kept no scores to take others from, as earlier versions did not: "
            "leave it out, or calibrate again with 'lightning fit'"
        )


def stated_rate(checkpoint: dict[str, Any]) -> float | None:
    """The false-alarm rate that a final checkpoint was calibrated for; None if it is of a phase."""
    if "config" not in checkpoint:
        return None
    options = yaml.safe_load(checkpoint["config"])["model"]["init_args"]
    while options.get("false_alarm_rate") is None and "method" in options:
        options = options["method"]["init_args"]  # what cuts into tiles takes its method's
    return options.get("false_alarm_rate")


def images_for(rate: float) -> int:
    """How many normal images vouch for a false-alarm rate: n do for 1 / (n + 1) or more."""
    return math.ceil(round(1 / rate, 6)) - 1


def fewest(calibration: Calibration) -> int | None:
    """The number of normal images of the category with the fewest; None if none were kept."""
    return int(calibration[CATEGORY].bincount().min()) if CATEGORY in calibration else None


def shortage(images: int | None, rate: float) -> list[str]:
    """A line if so many normal images are too few for a rate; else none."""
    if images is None or images >= images_for(rate):
        return []
    return [
        f"{images} normal images of a category vouch for a false-alarm rate of "
        f"{percent(1 / (images + 1))} or more, not for {percent(rate)}: the threshold is their "
        "largest score"
    ]


def percent(rate: float) -> str:
    """A rate as it is read: 0.05 is 5 %."""
    return f"{100 * rate:.3g} %"
