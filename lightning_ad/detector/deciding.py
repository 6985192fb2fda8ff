"""Where a detector's thresholds lie, where they come from, and how they move."""

import math
from typing import Any

import torch
from torch import Tensor

from lightning_ad.detector import thresholds
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY


class Deciding:
    """The part of a detector that turns scores into verdicts, once it is calibrated."""

    calibration: Calibration
    categories: list[str]
    false_alarm_rate: float
    threshold_by_hand: float | None = None
    calibrated_rate: float | None = None
    """The false-alarm rate that its checkpoint was calibrated for."""
    smallest_region = 1
    """Area in pixels of a photograph below which no region is reported."""

    def decide_by(
        self,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        smallest_region: int = 1,
    ) -> None:
        """Move the thresholds; nothing is trained or scored again.

        Args:
            false_alarm_rate: see `AnomalyDetector`; if not given, it stays as it is.
            threshold: a score above which images count as anomalous, instead of the calibrated
                one; also that of pixels, if a score is the largest value of its map.
            smallest_region: area in pixels of a photograph below which no region is reported.

        Raises:
            ValueError: for what is no such number, or for both a rate and a threshold.
        """
        thresholds.require_decision(false_alarm_rate, threshold, smallest_region)
        self.threshold_by_hand, self.smallest_region = threshold, smallest_region
        if false_alarm_rate is not None:
            self.false_alarm_rate = false_alarm_rate
            self.set_thresholds()

    def threshold(self, false_alarm_rate: float, category: str | None = None) -> float:
        """The image threshold of another false-alarm rate; `decide_by` makes it the one in force.

        ``category`` is one of `categories`; None takes the normal images of all of them.
        """
        number = self.number_of(category)
        return thresholds.threshold_of(self.calibration, false_alarm_rate, number)

    def decision(self) -> dict[str, Any]:
        """Where the thresholds in force come from, by the names of predictions.json."""
        if self.threshold_by_hand is not None:
            return {"false_alarm_rate": None, "threshold_from": "hand"}
        if "image_threshold" not in self.calibration:
            return {"false_alarm_rate": None, "threshold_from": None}
        return {"false_alarm_rate": self.false_alarm_rate, "threshold_from": "calibration"}

    def described_decision(self) -> list[str]:
        """The same in lines, with what is to be said against it."""
        if self.threshold_by_hand is not None:
            return [f"flagged above {self.threshold_by_hand:g}, a threshold given by hand"]
        if "image_threshold" not in self.calibration:
            return []
        rate = thresholds.percent(self.false_alarm_rate)
        return [
            f"flagged at a stated false-alarm rate of {rate}",
            *thresholds.shortage(thresholds.fewest(self.calibration), self.false_alarm_rate),
        ]

    def number_of(self, category: str | None) -> int:
        """The index of one of `categories`, or `UNKNOWN_CATEGORY` for None."""
        if category not in (None, *self.categories):
            raise ValueError(f"category '{category}' is none of the detector's, {self.categories}")
        return UNKNOWN_CATEGORY if category is None else self.categories.index(category)

    def image_threshold(self, category: Tensor) -> Tensor:
        """Score (B,) above which an image of the category (B,) is called anomalous."""
        if self.threshold_by_hand is not None:
            return torch.full(category.shape, self.threshold_by_hand, device=category.device)
        return self._threshold("image_threshold", category)

    def pixel_threshold(self, category: Tensor) -> Tensor:
        """Map value (B,) above which a pixel is called anomalous."""
        by_hand = self.threshold_by_hand
        if by_hand is not None and thresholds.scores_are_peaks(self.calibration):
            return torch.full(category.shape, by_hand, device=category.device)
        return self._threshold("pixel_threshold", category)

    def set_thresholds(self) -> None:
        """Take thresholds for `false_alarm_rate` from the held-out images' scores."""
        thresholds.set_thresholds(self.calibration, len(self.categories), self.false_alarm_rate)

    def _threshold(self, name: str, category: Tensor) -> Tensor:
        if name not in self.calibration:
            return torch.full(category.shape, math.nan, device=category.device)
        return self.calibration.of(name, category)

    def moved_to(self) -> dict[str, str]:
        """Of a fingerprint: where the thresholds are moved to, if not those of the checkpoint."""
        if self.threshold_by_hand is not None:
            return {"moved_to": f"threshold {self.threshold_by_hand:g}"}
        if self.calibrated_rate not in (None, self.false_alarm_rate):
            return {"moved_to": f"false_alarm_rate {self.false_alarm_rate:g}"}
        return {}
