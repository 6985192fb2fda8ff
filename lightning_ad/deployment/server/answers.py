"""What the server says, by the names of predictions.json."""

import base64
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from data_modules.reading.images import Pixels
from lightning_ad.deployment.server.batches import Answer
from lightning_ad.detector.photograph import Finding
from lightning_ad.maths.regions import mask_of
from lightning_ad.reports.drawing import Picture, scale_of, with_heat
from lightning_ad.reports.predictions_file import as_object

LONGEST = 900
"""Pixels of a picture's longer side."""


class Peak(BaseModel):
    """The largest value of a region."""

    at: tuple[int, int] = Field(description="x, y")
    value: float


class RegionOf(BaseModel):
    """A connected region above the pixel threshold, in pixels of the photograph."""

    box: tuple[int, int, int, int] = Field(description="x, y, width, height")
    area: int
    share: float
    centroid: tuple[float, float] = Field(description="x, y")
    peak: Peak


class Image(BaseModel):
    """What is said about one photograph."""

    path: str = Field(description="the name that it came with")
    category: str | None
    kind: None = None
    label: None = None
    size: tuple[int, int] = Field(description="height, width")
    score: float | None
    threshold: float | None
    p_value: float | None
    verdict: Literal["normal", "anomalous", "not judged"] | None
    pixel_threshold: float | None
    seconds: float
    regions: list[RegionOf]
    picture: str | None = Field(None, description="PNG in base 64: heat and regions, if asked for")


class Predictions(BaseModel):
    """What is said about the photographs of a request, in their order."""

    format: int
    method: str
    fingerprint: str | None
    root: None = None
    false_alarm_rate: float | None
    threshold_from: Literal["calibration", "hand"] | None
    images: list[Image]


class Reason(BaseModel):
    """Why there is no answer."""

    detail: str


def image_of(
    name: str, category: str | None, pixels: Pixels, answer: Answer, drawn: bool
) -> dict[str, Any]:
    """The object of one photograph."""
    finding = answer.finding
    return {
        "path": name,
        "category": category,
        "kind": None,
        "label": None,
        "size": list(pixels.shape[:2]),
        **finding.said(),
        "seconds": answer.seconds,
        "regions": [as_object(region) for region in finding.regions],
        **({"picture": _picture(pixels, finding)} if drawn else {}),
    }


def _picture(pixels: Pixels, finding: Finding) -> str:
    size = (pixels.shape[0], pixels.shape[1])
    picture = Picture(
        pixels,
        finding.anomaly_map,
        scale_of(finding.pixel_threshold, finding.anomaly_map),
        mask_of(finding.regions, size) // np.uint8(255),
        is_flagged=bool(finding.anomalous),
    )
    factor = min(1.0, LONGEST / max(size))
    small = picture.resized(*(max(1, round(factor * side)) for side in size))
    drawn = cv2.cvtColor(with_heat(small), cv2.COLOR_RGB2BGR)
    return base64.b64encode(cv2.imencode(".png", drawn)[1].tobytes()).decode()
