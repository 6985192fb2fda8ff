"""One definition of every metric, for every method and for the maps of other tools."""

from lightning_ad.metrics.detection import DetectionMetrics
from lightning_ad.metrics.evaluate import evaluate_maps
from lightning_ad.metrics.image import ImageMetrics
from lightning_ad.metrics.pixel import PixelMetrics

__all__ = ["DetectionMetrics", "ImageMetrics", "PixelMetrics", "evaluate_maps"]
