"""All metrics of a test: per category, and their unweighted mean over the categories."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_ad.metrics import points
from lightning_ad.metrics.counts import DEFECTIVE, NORMAL, require_finite
from lightning_ad.metrics.image import ImageMetrics
from lightning_ad.metrics.pixel import PixelMetrics

IMAGE_METRICS = ("image_auroc", "image_auprc", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_auprc", "pixel_f1max", "pixel_aupro")

# Part of every fingerprint: goes up with each change that can move a number.
METRICS_VERSION = 2


class DetectionMetrics(nn.Module):
    """Image and pixel metrics of every category, merged over processes when computed.

    `pixel=False` is for data without masks; `fpr_limit` and `exact` are PixelMetrics' own.
    """

    def __init__(
        self,
        categories: Sequence[str],
        fpr_limit: float = 0.3,
        exact: bool = False,
        pixel: bool = True,
    ) -> None:
        super().__init__()
        self.categories = list(categories)
        self.image = nn.ModuleList(ImageMetrics() for _ in self.categories)
        self.pixel = nn.ModuleList(PixelMetrics(fpr_limit, exact) for _ in self.categories if pixel)

    def update(
        self,
        anomaly_map: Tensor,
        mask: Tensor,
        score: Tensor,
        label: Tensor,
        category: Tensor,
        paths: Sequence[str] | None = None,
        judged: Tensor | None = None,
        counted: Tensor | None = None,
    ) -> None:
        """Add a batch: maps and masks (B, 1, H, W), scores, labels and category indices (B,).

        Only the pixels that ``judged`` (B, 1, H, W) marks are counted, if it is given, and among
        images only those that ``counted`` (B,) marks.
        Raises ValueError naming the images (by `paths`, else by position) with non-finite scores
        or of no category, or if the masks are not of the maps' size.
        """
        names = paths or [f"number {index} of the batch" for index in range(len(score))]
        self._require_known(category, names)
        require_finite(score[:, None], names)
        if self.pixel:
            require_finite(anomaly_map, names)
            if mask.shape != anomaly_map.shape:
                expected, got = tuple(anomaly_map.shape), tuple(mask.shape)
                raise ValueError(f"expected masks of the maps' shape {expected}, got {got}")
        for index in category.unique().tolist():
            chosen = category == index
            images = chosen if counted is None else chosen & counted
            if images.any():
                self.image[index].update(score[images], label[images])
            if self.pixel:
                pixels = None if judged is None else judged[chosen, 0]
                self.pixel[index].update(anomaly_map[chosen, 0], mask[chosen, 0], pixels)

    def _require_known(self, category: Tensor, names: Sequence[str]) -> None:
        """Raise a ValueError for images of an unknown category, whose index is negative."""
        known = (category >= 0) & (category < len(self.categories))
        if not known.all():
            first = int((~known).nonzero()[0])
            raise ValueError(
                f"{int((~known).sum())} image(s) of an unknown category, among them "
                f"{names[first]} (index {int(category[first])}): metrics are of the "
                f"{len(self.categories)} categories {', '.join(self.categories)}"
            )

    def compute(self) -> dict[str, float]:
        """Return `<category>/<metric>` and `mean/<metric>`; the mean leaves NaN out."""
        results: dict[str, float] = {}
        for index, category in enumerate(self.categories):
            metrics = [self.image[index], *self.pixel[index : index + 1]]
            for metric in metrics:
                values = _compute_quietly(metric)
                results |= {f"{category}/{name}": value for name, value in values.items()}
        undefined = [key for key, value in results.items() if math.isnan(value)]
        if undefined:
            warn_undefined(undefined)
        for name in IMAGE_METRICS + (PIXEL_METRICS if self.pixel else ()):
            column = [results[f"{category}/{name}"] for category in self.categories]
            results[f"mean/{name}"] = float(torch.tensor(column, dtype=torch.double).nanmean())
        return results

    def curves(self) -> dict[str, dict[str, list[list[float]]]]:
        """Points [x, y] of each category's curves, of what the last `compute` counted.

        `image_roc`, `image_pr`, and with masks `pixel_roc`, `pixel_pr` and `pro`, which ends at the
        false-positive rate of the AUPRO; see `points`.
        """
        found = {}
        for index, category in enumerate(self.categories):
            images: Any = self.image[index]
            curves = _curves("image", images.counted)
            if self.pixel:
                pixels: Any = self.pixel[index]
                curves |= _curves("pixel", pixels.counted)
                _, normal, _, overlap = pixels.counted.unbind(1)
                curves["pro"] = points.pro(normal, overlap, pixels.fpr_limit)
            found[category] = {name: points.thinned(curve) for name, curve in curves.items()}
        return found


def _curves(level: str, table: Tensor) -> dict[str, Tensor]:
    normal, defective = table[:, NORMAL], table[:, DEFECTIVE]
    return {
        f"{level}_roc": points.roc(normal, defective),
        f"{level}_pr": points.precision_recall(normal, defective),
    }


def warn_undefined(names: Sequence[str]) -> None:
    """Warn once that metrics are undefined for want of normal or defective samples."""
    warnings.warn(
        f"undefined for want of normal or of defective samples, hence NaN: {', '.join(names)}",
        stacklevel=3,
    )


def _compute_quietly(metric: ImageMetrics | PixelMetrics) -> dict[str, float]:
    """Compute without torchmetrics' warning that this process alone saw no image of a category."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
        return metric.compute()
