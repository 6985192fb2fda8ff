"""Visual anomaly detection with diffusion models on PyTorch Lightning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ad.detector.detector import AnomalyDetector as AnomalyDetector
    from lightning_ad.detector.detector import Detection as Detection

_HOME = {"AnomalyDetector": "detector.detector", "Detection": "detector.detector"}
"""Where each public name is defined, below this package."""

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: most need not all of the others."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
