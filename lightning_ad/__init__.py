"""Visual anomaly detection with diffusion models on PyTorch Lightning."""

from typing import TYPE_CHECKING

from lightning_ad.speed.lazy import imported_when_named

if TYPE_CHECKING:
    from lightning_ad.deployment.scorer import load_detector as load_detector
    from lightning_ad.detector.detection import Detection as Detection
    from lightning_ad.detector.detector import AnomalyDetector as AnomalyDetector
    from lightning_ad.detector.photograph import Finding as Finding
    from lightning_ad.metrics.evaluate import evaluate_maps as evaluate_maps

HOMES = {
    "AnomalyDetector": "detector.detector",
    "Detection": "detector.detection",
    "Finding": "detector.photograph",
    "evaluate_maps": "metrics.evaluate",
    "load_detector": "deployment.scorer",
}
"""The module below this package that each public name comes from."""

__all__ = list(HOMES)

__getattr__ = imported_when_named(__name__, HOMES)
