"""Where a detector's thresholds lie, where they come from, and how they move."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_ad.detector import thresholds
from lightning_ad.detector.contract import Method


@dataclass
class Decision:
    """What turns a method's scores into verdicts, once it is calibrated."""

    method: Method = field(repr=False)
    false_alarm_rate: float
    """Share of normal images that are flagged, and of those in which any pixel is."""
    threshold: float | None = None
    """A score above which images count as anomalous, instead of the calibrated one."""
    smallest_region: int = 1
    """Area in pixels of a photograph below which no region is reported."""
    calibrated_rate: float | None = None
    """The false-alarm rate that the checkpoint was calibrated for."""

    def move(self, false_alarm_rate: float | None, threshold: float | None, smallest: int) -> None:
        """Decide by these numbers; without a rate, that stays as it is.

        Raises:
            ValueError: for what is no such number, or for both a rate and a threshold.
        """
        thresholds.require_decision(false_alarm_rate, threshold, smallest)
        self.threshold, self.smallest_region = threshold, smallest
        if false_alarm_rate is not None:
            self.false_alarm_rate = false_alarm_rate
            self.set_thresholds()

    def source(self) -> dict[str, Any]:
        """Where the thresholds in force come from, by the names of predictions.json."""
        if self.threshold is not None:
            return {"false_alarm_rate": None, "threshold_from": "hand"}
        if "image_threshold" not in self.method.calibration:
            return {"false_alarm_rate": None, "threshold_from": None}
        return {"false_alarm_rate": self.false_alarm_rate, "threshold_from": "calibration"}

    def described(self) -> list[str]:
        """The same in lines, with what is to be said against it."""
        if self.threshold is not None:
            return [f"flagged above {self.threshold:g}, a threshold given by hand"]
        if "image_threshold" not in self.method.calibration:
            return []
        return [
            f"flagged at a stated false-alarm rate of {thresholds.percent(self.false_alarm_rate)}",
            *thresholds.shortage(thresholds.fewest(self.method.calibration), self.false_alarm_rate),
        ]

    def image_threshold(self, category: Tensor) -> Tensor:
        """Score (B,) above which an image of the category (B,) is called anomalous, or NaN."""
        if self.threshold is not None:
            return torch.full(category.shape, self.threshold, device=category.device)
        return self._calibrated("image_threshold", category)

    def pixel_threshold(self, category: Tensor) -> Tensor:
        """Map value (B,) above which a pixel is called anomalous, or NaN."""
        return self._calibrated("pixel_threshold", category)

    def faint_threshold(self, category: Tensor) -> Tensor:
        """The same (B,) in flagged images whose map is nowhere above that one."""
        return self._calibrated("faint_threshold", category)

    def fingerprint_fields(self) -> dict[str, str]:
        """Where the thresholds are moved to, if not those of the checkpoint."""
        if self.threshold is not None:
            return {"moved_to": f"threshold {self.threshold:g}"}
        if self.calibrated_rate not in (None, self.false_alarm_rate):
            return {"moved_to": f"false_alarm_rate {self.false_alarm_rate:g}"}
        return {}

    def set_thresholds(self) -> None:
        """Take thresholds for `false_alarm_rate` from the held-out images' scores."""
        categories = len(self.method.categories)
        thresholds.set_thresholds(self.method.calibration, categories, self.false_alarm_rate)

    def _calibrated(self, name: str, category: Tensor) -> Tensor:
        if name not in self.method.calibration:
            return torch.full(category.shape, math.nan, device=category.device)
        return self.method.calibration.of(name, category)
