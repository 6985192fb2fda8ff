"""Slow and obvious versions of what the packages compute fast."""

import numpy as np
from skimage.measure import label
from sklearn.metrics import auc


def aupro(maps: np.ndarray, masks: np.ndarray, fpr_limit: float) -> float:
    """One threshold per distinct score, one loop over the 8-connected regions at each."""
    regions = [
        maps[image][numbered == number]
        for image, mask in enumerate(masks)
        for numbered in [label(mask, connectivity=2)]
        for number in range(1, numbered.max() + 1)
    ]
    normal = maps[~masks]
    fpr, overlap = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        fpr.append(np.mean(normal >= threshold))
        overlap.append(np.mean([np.mean(region >= threshold) for region in regions]))
    area = 0.0
    for left, right, low, high in zip(fpr, fpr[1:], overlap, overlap[1:], strict=False):
        if right > fpr_limit:
            cut = low + (high - low) * (fpr_limit - left) / (right - left)
            return (area + (fpr_limit - left) * (low + cut) / 2) / fpr_limit
        area += (right - left) * (low + high) / 2
    return area / fpr_limit


def pro_200_thresholds(maps: np.ndarray, masks: np.ndarray) -> float:
    """The loop over thresholds, each over all regions, that published codes have in common."""
    rates, overlaps = [], []
    step = (maps.max() - maps.min()) / 200
    for threshold in np.arange(maps.min(), maps.max(), step):
        flagged = maps > threshold
        overlaps.append(
            np.mean(
                [
                    flagged[image][numbered == number].mean()
                    for image, mask in enumerate(masks)
                    for numbered in [label(mask, connectivity=2)]
                    for number in range(1, numbered.max() + 1)
                ]
            )
        )
        rates.append(flagged[~masks].mean())
    rate, overlap = np.array(rates), np.array(overlaps)
    below = rate < 0.3
    return float(auc(rate[below] / rate[below].max(), overlap[below]))


def f1_maximum(scores: np.ndarray, defective: np.ndarray) -> float:
    """Try every score as the threshold."""
    best = 0.0
    for threshold in np.unique(scores):
        flagged = scores >= threshold
        true = np.sum(flagged & defective)
        best = max(best, 2 * true / (flagged.sum() + defective.sum()))
    return best
