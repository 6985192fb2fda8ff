"""Image metrics: how well the scores of images tell defective from normal ones."""

from torch import Tensor

from lightning_ad.metrics.counts import DEFECTIVE, NORMAL, RankingMetric, require_finite
from lightning_ad.metrics.curves import auroc, average_precision, f1_maximum


def image_metrics(table: Tensor) -> dict[str, float]:
    """Return the image metrics of a table (bins, 4) that counts images, NaN where undefined."""
    normal, defective = table[:, NORMAL], table[:, DEFECTIVE]
    return {
        "image_auroc": auroc(normal, defective),
        "image_auprc": average_precision(normal, defective),
        "image_f1max": f1_maximum(normal, defective),
    }


class ImageMetrics(RankingMetric):
    """Exact AUROC, AUPRC (average precision) and F1max of one score per image."""

    def __init__(self) -> None:
        super().__init__(max_bins=None)

    def update(self, score: Tensor, label: Tensor) -> None:
        """Add scores (B,), higher if more anomalous, and labels (B,), 1 if defective.

        Raises ValueError naming, by position, the scores that are not finite.
        """
        require_finite(
            score[:, None], [f"score {index} of the batch" for index in range(len(score))]
        )
        defective = label.bool()
        self.add(score.float(), defective, overlap=label.new_zeros(int(defective.sum())))

    def compute(self) -> dict[str, float]:
        """Return image_auroc, image_auprc and image_f1max, NaN where undefined."""
        self.counted = self.merged()
        return image_metrics(self.counted)
