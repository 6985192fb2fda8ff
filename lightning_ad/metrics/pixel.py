"""Pixel metrics: how well the scores of pixels tell defects from their surroundings."""

from torch import Tensor

from lightning_ad.metrics.aupro import aupro, check_limit, region_weights
from lightning_ad.metrics.counts import MAX_BINS, RankingMetric, require_finite
from lightning_ad.metrics.curves import auroc, average_precision, f1_maximum


def pixel_metrics(table: Tensor, fpr_limit: float) -> dict[str, float]:
    """Return the pixel metrics of a table (bins, 4) that counts pixels, NaN where undefined."""
    _, normal, defective, overlap = table.unbind(1)
    return {
        "pixel_auroc": auroc(normal, defective),
        "pixel_auprc": average_precision(normal, defective),
        "pixel_f1max": f1_maximum(normal, defective),
        "pixel_aupro": aupro(normal, overlap, fpr_limit),
    }


class PixelMetrics(RankingMetric):
    """AUROC, AUPRC (average precision), F1max and AUPRO over all pixels of all images.

    `fpr_limit` in (0, 1] ends the AUPRO integral; `exact` keeps every distinct score instead of a
    bounded number of bins, at 32 bytes each.
    """

    def __init__(self, fpr_limit: float = 0.3, exact: bool = False) -> None:
        check_limit(fpr_limit)
        super().__init__(max_bins=None if exact else MAX_BINS)
        self.fpr_limit = fpr_limit

    def update(self, anomaly_map: Tensor, mask: Tensor, judged: Tensor | None = None) -> None:
        """Add maps (B, H, W) and masks (B, H, W), non-zero where defective.

        Only the pixels that ``judged`` (B, H, W) marks are counted, if it is given. Raises
        ValueError naming, by position, the maps that are not finite.
        """
        require_finite(anomaly_map, [f"map {index} of the batch" for index in range(len(mask))])
        scores, defective = anomaly_map.float(), mask.bool()
        if judged is None:
            self.add(scores.flatten(), defective.flatten(), region_weights(defective))
        else:
            counted = judged.bool()
            defective &= counted
            self.add(scores[counted], defective[counted], region_weights(defective))

    def compute(self) -> dict[str, float]:
        """Return pixel_auroc, pixel_auprc, pixel_f1max and pixel_aupro, NaN where undefined."""
        self.counted = self.final()
        return pixel_metrics(self.counted, self.fpr_limit)
