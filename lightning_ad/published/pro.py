"""PRO at 200 thresholds, as most published tables have it: to compare with them, not for use."""

import math
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label

from lightning_ad.detector.processes import data_module, of_all_processes


def pro_200_thresholds(anomaly_maps: ArrayLike, masks: ArrayLike) -> float:
    """PRO of maps (N, H, W) with masks (N, H, W), non-zero where defective, below an FPR of 0.3.

    Differs from the exact value in three ways: the curve is sampled at 200 evenly spaced
    thresholds, so that a monotone rescaling of the scores changes it; it ends at the last sample
    below the limit instead of at the limit; and rates are divided by that sample's. NaN without a
    defect, or where no threshold gives a rate between 0 and the limit.
    """
    scores, truth = np.asarray(anomaly_maps, np.float32), np.asarray(masks) != 0
    lowest, highest = scores.min(), scores.max()
    thresholds = np.arange(lowest, highest, (highest - lowest) / 200 or 1)
    regions = [
        _share_above(thresholds, image[numbered == number])
        for image, numbered in zip(scores, map(label, truth), strict=True)
        for number in range(1, numbered.max() + 1)
    ]
    rate = _share_above(thresholds, scores[~truth])
    below = rate < 0.3
    if not regions or not rate[below].any():
        return float("nan")
    overlap = np.mean(regions, axis=0)
    return float(np.trapezoid(overlap[below][::-1], (rate[below] / rate[below].max())[::-1]))


def _share_above(thresholds: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    below = np.searchsorted(np.sort(values), thresholds, side="right")
    return 1 - below / max(1, len(values))


def _of_category(pairs: list[list[torch.Tensor]]) -> float:
    """PRO of pairs of a map and a mask, each (H, W); NaN where there are none."""
    if not pairs:
        return float("nan")
    return pro_200_thresholds(*(torch.stack(part) for part in zip(*pairs, strict=True)))


class PublishedPRO(Callback):
    """Logs `pro_200_thresholds` per category and its mean as `pixel_pro_200` beside our metrics.

    Keeps all maps of the test set in memory, in half precision, as published evaluations do.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier maps."""
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep maps and masks."""
        maps = outputs.anomaly_map[:, 0].half().cpu()
        self.seen += zip(batch["category"].tolist(), maps, batch["mask"][:, 0].cpu(), strict=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the maps of all processes give."""
        groups = defaultdict(list)
        for share in of_all_processes(self.seen):
            for category, *pair in share:
                groups[category].append(pair)
        names = data_module(trainer).categories
        values = {name: _of_category(groups[i]) for i, name in enumerate(names)}
        defined = [value for value in values.values() if not math.isnan(value)]
        values["mean"] = float(np.mean(defined)) if defined else float("nan")
        logged = {f"test/{name}/pixel_pro_200": value for name, value in values.items()}
        pl_module.log_dict(logged, sync_dist=True, reduce_fx="max")
        self.seen = []
