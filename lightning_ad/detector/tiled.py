"""A method in tiles: photographs of any size, seen in their own resolution.

A defect of a few pixels is gone once a large photograph is brought to the size that a network
takes. Here the photograph is cut into overlapping tiles of that size, which the method compares as
if each were an image, and their maps are laid together without seams: where tiles overlap, the
weight of each falls towards its border and is zero close to it, so that what a network makes of a
border is not seen. What a tile's map shows therefore is what the whole image's would, for a method
that looks no further than `MARGIN` of the overlap.

The method trains and calibrates on tiles alone, see `AnomalyDataModule.in_tiles`; thresholds come
from whole held-out photographs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from data_modules.reading.tiles import Tiling, mirrored, resized, scaled_size, starts
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.per_category import members, require_at_least
from lightning_ad.detector.scoring import checked_compare, checked_fuse
from lightning_ad.maths.maps import mean_of_largest

MARGIN = 3 / 8
"""Share of an overlap, from the border of each tile, that does not count."""

Corner = tuple[int, int]
"""Row and column of a tile's first pixel."""


class Tiled(AnomalyDetector):
    """A method that sees whole photographs in tiles of ``data.image_size``, with data.fit tile.

    Args:
        method: what compares tiles; of its ``top_share`` see `score`.
        overlap: least share of a tile's side that its neighbour shows, too.
        scales: of the photograph, 0.5 for half as large, at which it is cut. The map is the mean
            over the scales of maps that are 1, on average, where a held-out normal photograph is
            most anomalous.
        tiles_at_once: tiles that a network sees in one batch: memory grows with it.
        false_alarm_rate: see `AnomalyDetector`; the method's if not given.

    Raises:
        ValueError: for settings that do not fit, or a method that standardizes places.
    """

    takes_whole = True

    def __init__(
        self,
        method: AnomalyDetector,
        overlap: float = 0.25,
        scales: list[float] | None = None,
        tiles_at_once: int = 8,
        false_alarm_rate: float | None = None,
    ) -> None:
        super().__init__(false_alarm_rate or method.false_alarm_rate, top_share=method.top_share)
        require_at_least(1, tiles_at_once=tiles_at_once)
        if method.standardize:
            raise ValueError(
                "model.standardize compares places, and a tile shows another place each time: "
                "leave it out with tiles"
            )
        try:
            self.tiling = Tiling(overlap, tuple(scales or [1.0]))
        except ValueError as error:
            raise ValueError(f"model.{error}") from error
        if method.folds:
            raise ValueError("model.folds cannot be had with tiles: leave it out")
        if method.protocol.startswith("as published"):
            raise ValueError(
                f"{method.title} measures as its paper did, not in tiles: leave them out"
            )
        self.method, self.tiles_at_once = method, tiles_at_once
        self.protocol = method.protocol
        self._cut: tuple[Any, Any] = (None, None)

    # What is the method's own.

    @property
    def title(self) -> str:
        """The method's name, and that it sees tiles."""
        return f"{self.method.title} in tiles"

    @property
    def learner(self) -> AnomalyDetector:
        """The method."""
        return self.method

    def lessons(self, datamodule: Any) -> Any:
        """The data's training images and held-out images in tiles."""
        if self._cut[0] is not datamodule:
            self._cut = datamodule, datamodule.in_tiles(self.tiling)
        lessons = self._cut[1]
        lessons.trainer = datamodule.trainer
        return lessons

    def __getstate__(self) -> dict[str, Any]:
        """A copy holds no data."""
        return {**super().__getstate__(), "_cut": (None, None)}

    def phases(self) -> list[Phase]:
        """The method's."""
        return self.method.phases()

    def enter_phase(self, name: str) -> None:
        """Refuse: a Trainer fits the method."""
        raise RuntimeError(
            "what sees tiles trains on tiles: fit(detector.learner, detector.lessons(data)), as "
            "'lightning fit' does"
        )

    def load_pretrained(self) -> None:
        """Load published weights into the method."""
        self.method.load_pretrained()

    def lasting_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """Also what the method keeps."""
        own = config["init_args"]
        own["method"] = self.method.lasting_config(own["method"])
        return config

    def fingerprint_fields(self, datamodule: Any) -> dict[str, Any]:
        """Also how photographs are cut."""
        scales = " ".join(f"{scale:g}" for scale in self.tiling.scales)
        tiles = {"overlap": self.tiling.overlap, "scales": scales}
        method = self.method.fingerprint_fields(datamodule)
        return method | super().fingerprint_fields(datamodule) | tiles

    def prepare_inference(self) -> None:
        """Prepare the method for speed."""
        self.method.prepare_inference()

    def match_categories(self, categories: list[str], stage: str) -> None:
        """Match the method's, too: both number them alike."""
        super().match_categories(categories, stage)
        self.method.match_categories(categories, stage)

    def take_categories(self, checkpoint: dict[str, Any]) -> None:
        """Take over the categories of a checkpoint, if it names some."""
        super().take_categories(checkpoint)
        self.method.take_categories(checkpoint)

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check what the method needs of tiles."""
        if stage == "fit":
            self.method.meet(self.lessons(datamodule), stage)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse other scales than those that were calibrated."""
        if "config" in checkpoint:
            stated = yaml.safe_load(checkpoint["config"])["model"]["init_args"]["scales"] or [1.0]
            if tuple(stated) != self.tiling.scales:
                raise ValueError(
                    f"model.scales is {list(self.tiling.scales)}, but the checkpoint was "
                    f"calibrated at {stated}: leave it out, or train with others"
                )
        super().on_load_checkpoint(checkpoint)

    # Detection.

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """The method's map at each scale, and its reconstruction at the first one."""
        size = (image.shape[-2], image.shape[-1])
        reconstruction, parts = None, {}
        for scale in self.tiling.scales:
            scaled = resized(image, scaled_size(size, scale))
            assembled = [self._assembled(one, of) for one, of in zip(scaled, category, strict=True)]
            parts[f"scale_{scale:g}"] = torch.stack(
                [resized(found[None, :1], size)[0] for found in assembled]
            )
            if not reconstruction and all(len(found) > 1 for found in assembled):
                reconstruction = [resized(found[None, 1:], size)[0] for found in assembled]
        return torch.stack(reconstruction) if reconstruction else None, parts

    def _assembled(self, image: Tensor, category: Tensor) -> Tensor:
        """Map, and reconstruction if there is one, (1 or 4, H, W) of one image (3, H, W)."""
        height, width = image.shape[-2:]
        tile = self.known_framing.seen
        rows, columns = mirrored(height, tile[0]), mirrored(width, tile[1])
        if (len(rows), len(columns)) != (height, width):
            down, across = (torch.from_numpy(p).to(image.device) for p in (rows, columns))
            image = image[:, down[:, None], across]
        weights = [
            _weights(side, own, self.tiling.overlap)
            for side, own in zip(image.shape[-2:], tile, strict=True)
        ]
        whole: Tensor | None = None
        for corners, found in self._tiles(image, category, [list(each) for each in weights]):
            if whole is None:
                whole = found.new_zeros(found.shape[1], *image.shape[-2:])
            for (top, left), one in zip(corners, found, strict=True):
                weight = weights[0][top][:, None] * weights[1][left]
                place = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
                whole[place] += one * weight.to(one.device)
        assert whole is not None, "an image has a tile at least"
        above, before = (len(rows) - height) // 2, (len(columns) - width) // 2
        return whole[:, above : above + height, before : before + width]

    def _tiles(
        self, image: Tensor, category: Tensor, begins: list[list[int]]
    ) -> Iterator[tuple[list[Corner], Tensor]]:
        """Corners of some tiles of an image (3, H, W), and what is found of each (B, C, h, w)."""
        (height, width), corners = (
            self.known_framing.seen,
            [(top, left) for top in begins[0] for left in begins[1]],
        )
        for first in range(0, len(corners), self.tiles_at_once):
            some = corners[first : first + self.tiles_at_once]
            cut = [image[:, top : top + height, left : left + width] for top, left in some]
            tiles = torch.stack(cut)
            of = category.expand(len(some))
            reconstruction, parts = checked_compare(self.method, tiles, of)
            found = [checked_fuse(self.method, parts, of)]
            if reconstruction is not None:
                found.append(reconstruction.float())
            yield some, torch.cat(found, 1)

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """The mean over the scales, each by its own measure; a single one as it is."""
        if len(parts) == 1:
            return next(iter(parts.values()))
        unit = self.calibration.of("scale_unit", category)  # (B, scales)
        measured = [
            part / unit[:, number, None, None, None] for number, part in enumerate(parts.values())
        ]
        return torch.stack(measured).mean(0)

    def score(self, anomaly_map: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Image scores (B,) of anomaly maps (B, 1, H, W): ``top_share`` is of one tile's pixels.

        Among those of the whole photograph, a small defect would count less the larger it is.
        """
        height, width = self.known_framing.seen
        pixels = min(height * width, anomaly_map[0].numel())
        return mean_of_largest(anomaly_map, self.top_share * pixels)

    @property
    def has_constants(self) -> bool:
        """Whether there are scales to measure."""
        return len(self.tiling.scales) > 1

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """The mean over held-out photographs, at each scale, of the largest value of the map."""
        groups = members(extremes["category"], len(self.categories))
        largest = torch.stack([extremes[f"scale_{s:g}_max"] for s in self.tiling.scales], 1)
        unit = torch.stack([largest[group].mean(0) for group in groups])
        self.calibration["scale_unit"] = unit.clamp(min=1e-12)


def _weights(side: int, tile: int, overlap: float) -> dict[int, Tensor]:
    """Weight (tile,) along a side of each tile, by where it begins; at each pixel they sum to 1."""
    begins = starts(side, tile, overlap)
    raw = []
    for number, begin in enumerate(begins):
        weight = np.ones(tile)
        if number > 0:
            rise = _ramp(begins[number - 1] + tile - begin)
            weight[: len(rise)] *= rise
        if number + 1 < len(begins):
            rise = _ramp(begin + tile - begins[number + 1])
            weight[tile - len(rise) :] *= rise[::-1]
        raw.append(weight)
    total = np.zeros(side)
    for begin, weight in zip(begins, raw, strict=True):
        total[begin : begin + tile] += weight
    return {
        begin: torch.from_numpy(weight / total[begin : begin + tile]).float()
        for begin, weight in zip(begins, raw, strict=True)
    }


def _ramp(overlap: int) -> np.ndarray:
    """From 0 to 1 over so many pixels, flat over `MARGIN` at both ends."""
    place = (np.arange(overlap) + 0.5) / max(1, overlap)
    return np.clip((place - MARGIN) / (1 - 2 * MARGIN), 0, 1)
