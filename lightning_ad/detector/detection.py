"""What a method says about images, and the stages in which it trains."""

from dataclasses import dataclass

from torch import Tensor

from lightning_ad.detector.photograph import Finding


@dataclass
class Detection:
    """What a method says about a batch of images."""

    anomaly_map: Tensor
    """(B, 1, H, W) float32, larger is more anomalous."""
    score: Tensor
    """(B,) float32, one score per image."""
    reconstruction: Tensor | None
    """(B, 3, H, W) in [-1, 1], the image as the model would have it; None if it makes none."""
    parts: dict[str, Tensor]
    """The named maps (B, 1, H, W) that were fused into ``anomaly_map``."""
    findings: list[Finding] | None = None
    """What is said about each photograph, once a callback has asked `findings_of` for it."""


@dataclass(frozen=True)
class Phase:
    """One stage of training, a `fit` of its own."""

    name: str
    epochs: int | None = None
    """Length in epochs; None leaves it to the Trainer."""
    batch_size: int | None = None
    """Images per process and step; None leaves them to the data."""
