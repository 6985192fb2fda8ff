"""Pictures of what was found: a small one of every image, a large one of some or of all."""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from data_modules.reading.dataset import Framing
from data_modules.reading.images import MaskRule, read_image, read_mask
from data_modules.records import Record
from lightning_ad.callbacks.painter import Painter
from lightning_ad.detector.photograph import Finding, map_of_photograph
from lightning_ad.detector.processes import data_module, of_all_processes
from lightning_ad.maths.regions import mask_of
from lightning_ad.reports.drawing import Mask, Picture, Pixels, scale_of, thumbnail
from lightning_ad.reports.files import name_below
from lightning_ad.reports.panel import Heading, panel
from lightning_ad.reports.pictures import flat_name, picture_name, write_picture

SUFFIX = ".jpg"
"""Of pictures: a panel as a PNG takes ten times as long and four times the room."""

log = logging.getLogger(__name__)


def draw_lot(name: str) -> str:
    """Return a lot that is the same in every run, so that kinds of defects mix."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()


@dataclass(frozen=True)
class Drawing:
    """All that it takes to draw one image, which is read again at its own resolution."""

    file: str
    finding: Finding
    heading: Heading
    framing: Framing
    record: Record | None
    """Of a test image, whose mask is drawn."""
    mask_rule: MaskRule
    reconstruction: Tensor | None
    """(3, S, S) in [-1, 1]."""
    folder: Path
    """Of results: the thumbnail and the mask of regions go into folders in it."""
    name: PurePath
    """Below the data's root."""
    panel: Path | None
    """Where the large picture goes, if there is to be one."""

    def draw(self) -> None:
        """Write the pictures."""
        photograph = read_image(Path(self.file), self.framing.white_level)
        size = (photograph.shape[0], photograph.shape[1])
        regions = mask_of(self.finding.regions, size)
        picture = Picture(
            photograph,
            self.finding.anomaly_map,
            scale_of(self.finding.pixel_threshold, self.finding.anomaly_map),
            regions // 255,
            self._truth(),
            self._redrawn(size) if self.panel else None,
            is_flagged=self.finding.verdict != "normal",
        )
        if self.finding.pixel_threshold is not None:
            write_picture(self.folder / "masks" / picture_name(self.name), regions)
        write_picture(
            self.folder / "thumbnails" / picture_name(self.name, SUFFIX), thumbnail(picture)
        )
        if self.panel:
            write_picture(self.panel, panel(picture, self.heading))

    def _truth(self) -> Mask | None:
        masks = self.record.masks if self.record and self.record.label else ()
        parts = [read_mask(path, self.mask_rule) for path in masks]
        return np.maximum.reduce(parts) if parts else None

    def _redrawn(self, size: tuple[int, int]) -> Pixels | None:
        """The reconstruction at the photograph's size, white where nothing was seen."""
        if self.reconstruction is None:
            return None
        channels = [
            map_of_photograph(channel[None, None], self.framing, size)
            for channel in self.reconstruction.clamp(-1, 1)
        ]
        values = np.nan_to_num(np.stack(channels, axis=-1), nan=1.0)
        return np.rint((values + 1) * 127.5).astype(np.uint8)


class Panels(Callback):
    """A thumbnail and a mask of regions of every image, and panels: also in W&B.

    Of a test, panels show some images of each category, in `<run>/panels/<category>`; three of four
    are defective where there are enough of either, and they are the same in every run. Of a
    prediction, each image has one, in `<run>/predictions/panels`. Photographs keep their
    resolution. They are drawn beside the scoring; where they cannot be written, as on a full disk,
    the rest goes on and the end is an error.

    Args:
        per_category: Images per category of a test; 0 for none.
    """

    def __init__(self, per_category: int = 8) -> None:
        if per_category < 0:
            raise ValueError(f"per_category must not be negative, got {per_category}")
        self.per_category = per_category

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the images that get a panel."""
        records = data_module(trainer).records_of("test")
        self.painter, self.folder = Painter(), Path(trainer.default_root_dir)
        self.records = {str(record.image): record for record in records}
        self.chosen = {
            str(record.image)
            for category in {record.category for record in records}
            for record in choose([r for r in records if r.category == category], self.per_category)
        }
        self.shown: list[tuple[str, str]] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Get ready to draw every image."""
        self.painter, self.folder = Painter(), Path(trainer.default_root_dir) / "predictions"
        self.records = {}

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Draw a batch, panels of the chosen images."""
        names = [name_below(path, data_module(trainer).root) for path in batch["path"]]
        panels = []
        for path, name, index in zip(batch["path"], names, batch["category"].tolist(), strict=True):
            category = data_module(trainer).categories[index]
            inner = PurePath(name.as_posix().removeprefix(f"{category}/"))
            file = self.folder / "panels" / category / flat_name(inner, SUFFIX)
            panels.append(file if path in self.chosen else None)
            self.shown += [(category, str(file))] if path in self.chosen else []
        self._draw(trainer, pl_module, outputs, batch, panels)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Draw a batch, a panel of each image."""
        names = [name_below(path, data_module(trainer).root) for path in batch["path"]]
        panels = [panel_of(self.folder, name) for name in names]
        self._draw(trainer, pl_module, outputs, batch, panels)

    def _draw(
        self,
        trainer: Trainer,
        detector: Any,
        detection: Any,
        batch: Any,
        panels: Sequence[Path | None],
    ) -> None:
        data = data_module(trainer)
        findings = detector.findings_of(detection, batch)
        redrawn = detection.reconstruction
        for index, (path, finding) in enumerate(zip(batch["path"], findings, strict=True)):
            name, record = name_below(path, data.root), self.records.get(path)
            kept = redrawn is not None and panels[index] is not None
            drawing = Drawing(
                path,
                finding,
                _heading(name.as_posix(), finding, record),
                detector.framing,
                record if data.has_masks else None,
                data.mask_rule,
                redrawn[index].float().cpu() if kept else None,
                self.folder,
                name,
                panels[index],
            )
            self.painter.submit(drawing.draw)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the pictures."""
        self.painter.finish()

    on_predict_epoch_end = on_test_epoch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the panels of all processes to W&B."""
        shown = sorted(each for share in of_all_processes(self.shown) for each in share)
        if trainer.is_global_zero and shown:
            for category in data_module(trainer).categories:
                files = [Path(file) for name, file in shown if name == category]
                _log_to_wandb(trainer, category, [file for file in files if file.exists()])
            log.info("panels: %s", self.folder / "panels")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Finish the pictures of what was scored: a prediction may go on behind them."""
        painter = self.__dict__.pop("painter", None)
        if painter is not None:
            painter.finish()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise what kept pictures from being written, now that all else is."""
        painter = self.__dict__.pop("painter", None)
        if painter is not None and painter.failure is not None:
            raise OSError(
                f"{painter.failure}; {painter.missing} images have no pictures, all else is in "
                f"{self.folder}"
            ) from painter.failure


def panel_of(folder: Path, name: PurePath) -> Path:
    """The large picture of an image in a folder of predictions; the last one that is written."""
    return folder / "panels" / picture_name(name, SUFFIX)


def choose(records: Iterable[Record], number: int) -> list[Record]:
    """Choose up to `number`, a quarter of them normal unless there are too few of either kind."""
    ordered = sorted(records, key=lambda r: draw_lot(f"{r.category}/{r.defect}/{r.image.name}"))
    defective = [record for record in ordered if record.label]
    normal = [record for record in ordered if not record.label]
    normal_share = max(number // 4, number - len(defective))
    return defective[: number - min(normal_share, len(normal))] + normal[:normal_share]


def _heading(name: str, finding: Finding, record: Record | None) -> Heading:
    known = (None, None) if record is None else (record.label, record.defect)
    return Heading(name, finding.score, finding.threshold, finding.verdict, *known)


def _log_to_wandb(trainer: Trainer, category: str, files: list[Path]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and files:
            logger.log_image(
                f"panels/{category}",
                _of_one_size([read_image(file) for file in files]),
                caption=[file.stem for file in files],
                file_type=["jpg" for _ in files],
            )


def _of_one_size(pictures: Sequence[Pixels]) -> list[Pixels]:
    """The pictures with white below and to the right, as W&B lays them out in a grid."""
    height, width = np.max([picture.shape[:2] for picture in pictures], axis=0)
    return [
        np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)), constant_values=255)
        for p in pictures
    ]
