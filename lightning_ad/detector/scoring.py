"""Around a method that scores: what images and maps must be, and what is said of photographs."""

from collections.abc import Sequence

import torch
from torch import Tensor

from data_modules.reading.dataset import judged_in
from data_modules.reading.framing import Framing
from data_modules.reading.images import Pixels
from lightning_ad.detector import thresholds
from lightning_ad.detector.contract import Method
from lightning_ad.detector.deciding import Decision
from lightning_ad.detector.detection import Detection
from lightning_ad.detector.judged import JUDGED, judged_box, judged_part
from lightning_ad.detector.normals import relative_to_normals
from lightning_ad.detector.photograph import Finding, Numbers, finding_of, map_of_photograph


def require_image(image: Tensor, size: Sequence[int]) -> None:
    """Raise a ValueError for images that are not (B, 3, *size) in [-1, 1]."""
    if image.ndim != 4 or image.shape[1:] != (3, *size):
        expected = ", ".join(map(str, ("B", 3, *size)))
        raise ValueError(
            f"expected images ({expected}), as the detector was trained on, not "
            f"{tuple(image.shape)}: `predict` reads and resizes photographs"
        )
    low, high = image.aminmax()
    if not (low >= -1.001 and high <= 1.001):
        raise ValueError(
            f"expected images in [-1, 1], not from {low:.4g} to {high:.4g}: scale 8-bit values "
            "by image / 127.5 - 1, or let `predict` read the photographs"
        )


def checked_compare(
    method: Method, image: Tensor, category: Tensor
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """`compare`, its maps of the shape they must have, relative to normal ones if learned."""
    reconstruction, parts = method.compare(image, category)
    for name, part in parts.items():
        _require_map(f"{type(method).__name__}: compare's '{name}'", part, image)
    return reconstruction, relative_to_normals(method.calibration, parts, category)


def checked_fuse(method: Method, parts: dict[str, Tensor], category: Tensor) -> Tensor:
    """`fuse`, its map of the shape it must have."""
    anomaly_map = method.fuse(parts, category)
    like = next(iter(parts.values()))
    _require_map(f"{type(method).__name__}: fuse's map", anomaly_map, like)
    return anomaly_map


def _require_map(name: str, found: Tensor, like: Tensor) -> None:
    expected = (like.shape[0], 1, *like.shape[2:])
    if tuple(found.shape) != expected:
        raise ValueError(f"{name} must be of shape {expected}, not {tuple(found.shape)}")


def judged_score(
    method: Method, anomaly_map: Tensor, parts: dict[str, Tensor], judged: Tensor | None
) -> Tensor:
    """`score` of the pixels that ``judged`` (B, 1, H, W) marks in each map, or of all."""
    if judged is None:
        return method.score(anomaly_map, parts)
    scores = []
    for index, marks in enumerate(judged.bool()):
        one = {"": anomaly_map, **parts}
        own = {name: judged_part(part[index], marks)[None] for name, part in one.items()}
        own[JUDGED] = judged_box(marks, marks)[None].to(anomaly_map.device)
        scores.append(method.score(own.pop(""), own))
    return torch.cat(scores)


def judged_of(
    framing: Framing, sizes: Sequence[tuple[int, int]], interests: Sequence[Pixels | None]
) -> Tensor | None:
    """Which pixels (B, 1, H, W) count of photographs of these sizes; None if all do."""
    if not framing.padded and all(interest is None for interest in interests):
        return None
    pairs = zip(sizes, interests, strict=True)
    judged = torch.stack([judged_in(framing, size, interest) for size, interest in pairs])
    if not judged.flatten(1).any(1).all():
        raise ValueError("the region of interest has less than a pixel that is seen")
    return judged


def findings(
    decision: Decision,
    detection: Detection,
    category: Tensor,
    framing: Framing,
    sizes: Sequence[tuple[int, int]],
    interests: Sequence[Pixels | None],
) -> list[Finding]:
    """What is said about photographs of these sizes (H, W), of the categories (B,).

    ``interests`` are their regions of interest (H, W), where they have some.
    """
    columns = (
        detection.score,
        decision.image_threshold(category),
        thresholds.p_values(decision.method.calibration, detection.score, category),
        decision.pixel_threshold(category),
        decision.faint_threshold(category),
    )
    places = zip(detection.anomaly_map, sizes, interests, strict=True)
    maps = [map_of_photograph(m[None], framing, size, mask) for m, size, mask in places]
    numbers = zip(*map(Tensor.tolist, columns), strict=True)
    return [
        finding_of(anomaly_map, Numbers(*row), decision.smallest_region)
        for anomaly_map, row in zip(maps, numbers, strict=True)
    ]
