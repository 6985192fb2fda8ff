"""Pictures of some test images: image, reconstruction, anomaly map and mask side by side."""

import hashlib
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from numpy.typing import NDArray

from lightning_ad.detector.detector import Detection
from lightning_ad.detector.processes import data_module, of_all_processes
from lightning_ad.reports.drawing import (
    Pixels,
    Scale,
    heat,
    marked,
    photograph,
    reconstructed,
    row_of,
    tiles_of,
)
from lightning_ad.reports.files import name_below
from lightning_ad.reports.pictures import flat_name, write_picture

log = logging.getLogger(__name__)


def draw_lot(name: str) -> str:
    """Return a lot that is the same in every run, so that kinds of defects mix."""
    return hashlib.sha256(os.fsencode(name)).hexdigest()


@dataclass
class Candidate:
    """A test image that may be drawn, in memory until the whole test has been seen."""

    name: str
    category: int
    label: int
    score: float
    image: Pixels
    reconstruction: Pixels | None
    anomaly_map: NDArray[np.float32]
    mask: NDArray[np.uint8]

    def draw(self, scale: Scale, has_masks: bool) -> Pixels:
        """Draw the row of tiles."""
        kind = "defective" if self.label else "normal"
        tiles = tiles_of(self.image, self.reconstruction, heat(self.anomaly_map, scale))
        if has_masks:
            tiles["mask"] = marked(self.mask)
        return row_of(tiles, f"{kind}, score {self.score:.4g}:  {self.name}", scale)


class Panels(Callback):
    """PNG panels of test images of every category, in `<run>/panels/<category>` and in W&B.

    Three of four are defective where there are enough of either; which images they are does not
    depend on the order or the number of processes. The colours of all maps of a category share one
    scale, from the smallest to the largest value of its test, written at the right of each row.

    Args:
        per_category: Images per category; 0 for none.
    """

    def __init__(self, per_category: int = 8) -> None:
        if per_category < 0:
            raise ValueError(f"per_category must not be negative, got {per_category}")
        self.per_category = per_category

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier tests."""
        data = data_module(trainer)
        self.kept: dict[tuple[int, int], list[Candidate]] = {}
        self.lowest = torch.full((len(data.categories),), math.inf)
        self.highest = -self.lowest

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the images that may be drawn, and the range of the maps."""
        detection: Detection = outputs
        category = batch["category"].cpu()
        low, high = (
            bound.float().cpu() for bound in detection.anomaly_map.flatten(1).aminmax(dim=1)
        )
        self.lowest.scatter_reduce_(0, category, low, "amin")
        self.highest.scatter_reduce_(0, category, high, "amax")
        for index in range(len(batch["path"])):
            self._keep_if_chosen(detection, batch, index, data_module(trainer).root)

    def _keep_if_chosen(self, detection: Detection, batch: Any, index: int, root: Path) -> None:
        """Keep an image if it is among the first of its category and label so far."""
        name = name_below(batch["path"][index], root).as_posix()
        kept = self.kept.setdefault((int(batch["category"][index]), int(batch["label"][index])), [])
        if len(kept) < self.per_category or (kept and draw_lot(name) < draw_lot(kept[-1].name)):
            kept.append(_candidate(detection, batch, index, name))
            kept.sort(key=lambda candidate: draw_lot(candidate.name))
            del kept[self.per_category :]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Agree with the other processes on the images and the scales, draw, and log to W&B.

        The metrics are on the disk by then: `Evaluation` stands before this callback.
        """
        data = data_module(trainer)
        own = [candidate for kept in self.kept.values() for candidate in kept]
        shares = of_all_processes((own, self.lowest, self.highest))
        if trainer.is_global_zero:
            lowest = torch.stack([share[1] for share in shares]).amin(0).tolist()
            highest = torch.stack([share[2] for share in shares]).amax(0).tolist()
            candidates = [candidate for share in shares for candidate in share[0]]
            folder = Path(trainer.default_root_dir) / "panels"
            for index, category in enumerate(data.categories):
                scale = Scale(lowest[index], highest[index])
                here = [candidate for candidate in candidates if candidate.category == index]
                chosen = choose(here, self.per_category)
                files = [_write(each, folder, category, scale, data.has_masks) for each in chosen]
                _log_to_wandb(trainer, category, files)
            if candidates:
                log.info("panels: %s", folder)
        del self.kept


def choose(candidates: list[Candidate], number: int) -> list[Candidate]:
    """Choose up to `number`, a quarter of them normal unless there are too few of either kind."""
    ordered = sorted(candidates, key=lambda candidate: draw_lot(candidate.name))
    defective = [candidate for candidate in ordered if candidate.label]
    normal = [candidate for candidate in ordered if not candidate.label]
    normal_share = max(number // 4, number - len(defective))
    return defective[: number - min(normal_share, len(normal))] + normal[:normal_share]


def _candidate(detection: Detection, batch: Any, index: int, name: str) -> Candidate:
    return Candidate(
        name=name,
        category=int(batch["category"][index]),
        label=int(batch["label"][index]),
        score=float(detection.score[index]),
        image=photograph(batch["image"][index]),
        reconstruction=reconstructed(detection.reconstruction, index),
        anomaly_map=detection.anomaly_map[index, 0].float().cpu().numpy(),
        mask=batch["mask"][index, 0].cpu().numpy(),
    )


def _write(
    candidate: Candidate, folder: Path, category: str, scale: Scale, has_masks: bool
) -> Path:
    file = folder / category / flat_name(PurePath(candidate.name.removeprefix(f"{category}/")))
    write_picture(file, candidate.draw(scale, has_masks))
    return file


def _log_to_wandb(trainer: Trainer, category: str, files: list[Path]) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and files:
            logger.log_image(
                f"panels/{category}",
                [str(file) for file in files],
                caption=[file.stem for file in files],
            )
