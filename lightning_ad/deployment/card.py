"""What lies beside an exported file: where it is from, what it takes and says, how it differs."""

import hashlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from data_modules.reading.framing import Framing
from data_modules.reading.geometry import Window
from data_modules.reading.texts import read_json
from lightning_ad.deployment.scorer import Loaded
from lightning_ad.detector.detector import AnomalyDetector

FORMAT = 1
"""Goes up when a field changes its meaning."""
USED = ("lightning-ad", "torch", "onnx", "onnxruntime", "onnxscript")
"""Packages whose versions decide what an export comes out as."""


def card_of(
    checkpoint: Path,
    loaded: Loaded,
    number: int,
    draws: int,
    window: Window | None,
    made: dict[str, Any],
) -> dict[str, Any]:
    """The card of an export, as JSON values.

    Args:
        checkpoint: that is exported.
        loaded: what it holds.
        number: the category that all images are scored as.
        draws: how often the method draws noise for an image.
        window: where padded images show the photograph.
        made: how the file was made: its name, format, precision.
    """
    detector = loaded.detector
    framing = detector.known_framing
    known = 0 <= number < len(detector.categories)
    thresholds = ("image_threshold", "pixel_threshold")
    return {
        "card": FORMAT,
        **made,
        "method": type(detector).__name__,
        "categories": detector.categories,
        "category": detector.categories[number] if known else None,
        "preprocessing": preprocessing_of(framing, window),
        **{name: float(detector.calibration[name][number]) for name in thresholds},
        "false_alarm_rate": detector.false_alarm_rate,
        "noise_draws": draws,
        "inputs": _inputs(framing, draws),
        "outputs": _outputs(framing),
        "licences": licences(detector),
        "checkpoint": {
            "file": checkpoint.name,
            "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
            "fingerprint": _fingerprint(checkpoint),
            "trained_by": loaded.trained_with.get("version"),
            "precision": loaded.config["trainer"]["precision"] or "32-true",
        },
        "versions": {name: version(name) for name in USED if find_spec(name.replace("-", "_"))},
    }


def preprocessing_of(framing: Framing, window: Window | None = None) -> dict[str, Any]:
    """How a photograph becomes what the model sees, in words and in numbers."""
    (height, width), frame, (top, left) = framing.seen, framing.frame, framing.cut
    how = {
        "area": "by area averaging where it shrinks (OpenCV's INTER_AREA), else bilinearly",
        "bilinear": "bilinearly with Pillow's widened filter",
        "bicubic": "bicubically with Pillow's widened filter",
    }[framing.interpolation]
    fit = {
        "squash": ", the aspect ratio not kept",
        "crop": " at least, in its own aspect ratio, and the middle cut out",
        "pad": " at most, in its own aspect ratio, in the middle of what it mirrors around it",
    }[framing.fit]
    cut = f"; the central {height} x {width} pixels are seen" if (top, left) != (0, 0) else ""
    return {
        "words": f"8-bit RGB; a grey value is repeated, alpha dropped, 16-bit values are divided "
        f"by {framing.white_level / 255:g}; resized to {frame[0]} x {frame[1]} "
        f"(height x width){fit}, {how}{cut}. Scaling to [-1, 1] and normalisation are in the "
        "model.",
        "fit": framing.fit,
        "resize": list(frame),
        "interpolation": framing.interpolation,
        "crop": [top, left, top + height, left + width],
        "shown": [[side.start, side.stop] for side in window] if window else None,
        "white_level": framing.white_level,
    }


def _inputs(framing: Framing, draws: int) -> dict[str, str]:
    height, width = framing.seen
    inputs = {
        "image": f"uint8 (B, {height}, {width}, 3), red, green, blue",
        "threshold": "float32 (): scores above it are anomalous; in ONNX the calibrated one if "
        "not given",
    }
    if draws:
        inputs["noise"] = (
            f"float32 (B, {draws}, 3, {height}, {width}), standard normal: the function `noise` in "
            "prepare.py draws from an image what the detector draws from it on a CPU"
        )
    return inputs


def _outputs(framing: Framing) -> dict[str, str]:
    height, width = framing.seen
    return {
        "anomaly_map": f"float32 (B, {height}, {width}), larger is more anomalous",
        "score": "float32 (B,)",
        "anomalous": "bool (B,)",
    }


def licences(detector: AnomalyDetector) -> dict[str, str]:
    """The licence of the pretrained weights in each part of a detector that says where they are of.

    What was trained here belongs to whoever trained it.
    """
    found = {name: _licence(part) for name, part in detector.named_children()}
    return {name: licence for name, licence in found.items() if licence}


def _licence(part: nn.Module) -> str | None:
    published = getattr(part, "published", None)
    if published is not None:
        source = getattr(part, "weights", "")
        if source == "random":
            return "none, they are random"
        if source not in ("pretrained", "wheel"):
            return f"of the weights in {Path(source).name}: see where they come from"
        return f"{published.get('license') or 'not stated'} ({published.get('hf_hub_id') or ''})"
    return getattr(part, "licence", None)


def _fingerprint(checkpoint: Path) -> str | None:
    """Of the run's test, where its results lie beside the checkpoint."""
    results = checkpoint.with_name("metrics.json")
    return read_json(results).get("fingerprint") if results.is_file() else None
