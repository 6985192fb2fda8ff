"""What happens around a method's test and prediction: metrics, speed, pictures, files."""

from lightning_ad.callbacks.evaluation import Evaluation
from lightning_ad.callbacks.panels import Panels
from lightning_ad.callbacks.predictions import Predictions
from lightning_ad.callbacks.report import Report
from lightning_ad.callbacks.throughput import Throughput

__all__ = ["Evaluation", "Panels", "Predictions", "Report", "Throughput"]
