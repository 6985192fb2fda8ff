"""Calibration from held-out normal images: what a score needs beside trained weights.

After training, normal images that were never trained on pass once through the detector. They give
the constants that fuse its distance maps, its memory of training images where it keeps one, and
the scores that thresholds with a stated false-alarm rate are taken from. With folds, the training
images are scored as well, each by what others teach (cross-conformal prediction: Vovk, "Cross-
conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015). Everything lands
in the checkpoint, so that one image can be scored alone, anywhere, with the same result. Test
images play no part.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules import AnomalyDataModule
from lightning_ad.detector import scoring
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.judged import JUDGED, judged_values, maps_in
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.normals import learn_normals
from lightning_ad.detector.processes import Rows, gather, of_all_processes
from lightning_ad.detector.region import keep_region
from lightning_ad.detector.thresholds import keep_scores
from lightning_ad.experiment.choose import Observe, choose
from lightning_ad.experiment.phases import announce


def calibrate(detector: AnomalyDetector, trainer: Trainer, datamodule: AnomalyDataModule) -> None:
    """Fill ``detector.calibration`` from the training images and the held-out normal images.

    Runs inside ``trainer``, on its devices, precision and processes; every process ends with the
    same numbers.
    """
    if detector.learner is not detector:
        calibrate(detector.learner, trainer, detector.lessons(datamodule))
    score = _score_one_by_one if detector.takes_whole else _score_at_once
    scored, normal_images = score(detector, trainer, datamodule)
    keep_scores(detector.calibration, scored, normal_images)
    keep_region(detector.calibration, datamodule.region, detector.categories)
    detector.decision.set_thresholds()


def _score_at_once(
    detector: AnomalyDetector, trainer: Trainer, datamodule: AnomalyDataModule
) -> tuple[dict[str, Tensor], int]:
    """Set the detector's constants; what `_scores` are then, and of how many images."""
    normal_images = len(datamodule.held_out_records())
    compared: list[Rows] = []
    if detector.folds:
        compared += _compare_folds(detector, trainer, datamodule, detector.folds)
        normal_images += len(datamodule.training_records())
    _remember(detector, trainer, datamodule.memory_dataloader())
    if detector.choices:
        held_out = datamodule.val_dataloader()
        device = trainer.strategy.root_device
        choose(
            detector, datamodule, lambda look: _Pass(detector, look).run(trainer, held_out), device
        )
    compared += _compare(detector, trainer, datamodule.val_dataloader())
    if not sum(of_all_processes(len(compared))):
        raise RuntimeError("no held-out normal images to calibrate on: raise data.val_fraction")
    if detector.standardize:
        learn_normals(detector.calibration, compared, len(detector.categories))
    detector.set_constants(gather([_extremes(rows) for rows in compared]))
    return gather([_scores(detector, rows) for rows in compared]), normal_images


def _score_one_by_one(
    detector: AnomalyDetector, trainer: Trainer, datamodule: AnomalyDataModule
) -> tuple[dict[str, Tensor], int]:
    """The same where maps are too large to be kept: another look for the constants, if any."""
    detector.calibration = Calibration()

    def gathered(of: Callable[[Rows], Rows]) -> dict[str, Tensor]:
        found: list[Rows] = []
        look = _Pass(detector, lambda *batch: found.append(of(_compared(detector, *batch))))
        look.run(trainer, datamodule.val_dataloader())
        return gather(found)

    if detector.has_constants:
        detector.set_constants(gathered(_extremes))
    return gathered(lambda rows: _scores(detector, rows)), len(datamodule.held_out_records())


def _compare(detector: AnomalyDetector, trainer: Trainer, loader: DataLoader) -> list[Rows]:
    """The maps of this process's share of the images, one entry per batch."""
    compared: list[Rows] = []
    look = _Pass(detector, lambda *batch: compared.append(_compared(detector, *batch)))
    look.run(trainer, loader)
    return compared


def _compare_folds(
    detector: AnomalyDetector, trainer: Trainer, datamodule: AnomalyDataModule, count: int
) -> list[Rows]:
    """The maps of the training images, each fold's by what the others teach."""
    compared: list[Rows] = []
    for number, (others, fold) in enumerate(datamodule.fold_dataloaders(count), 1):
        announce(f"cross-calibration: fold {number} of {count}")
        _remember(detector, trainer, others)
        compared += _compare(detector, trainer, fold)
    return compared


def _remember(detector: AnomalyDetector, trainer: Trainer, loader: DataLoader) -> None:
    """Let the detector learn from normal images what it keeps of them."""
    detector.calibration = Calibration()
    for memory in detector.memory_passes(trainer.strategy.root_device):
        _Pass(detector, _remembered_by(memory)).run(trainer, loader)
        memory.finish()
    detector.calibration.cpu()


class _Pass(LightningModule):
    """One pass of ``observe(batch, category)`` over a loader, inside a Trainer."""

    def __init__(self, detector: AnomalyDetector, observe: Observe) -> None:
        super().__init__()
        self.detector, self.observe = detector, observe

    def on_predict_start(self) -> None:
        self.detector.prepare_inference()

    def predict_step(self, batch: Any, batch_idx: int) -> int:
        self.observe(batch, self.detector.category_of(batch))
        return batch_idx  # Lightning warns of None

    def run(self, trainer: Trainer, loader: DataLoader) -> None:
        trainer.predict(self, loader, return_predictions=False)


def _remembered_by(memory: MemoryPass) -> Observe:
    return lambda batch, category: memory.observe(batch["image"], category, batch["path"])


def _compared(detector: AnomalyDetector, batch: Any, category: Tensor) -> Rows:
    """The maps of a batch."""
    _, parts = scoring.checked_compare(detector, batch["image"], category)
    columns = {name: part.cpu() for name, part in parts.items()}
    judged = {JUDGED: batch[JUDGED].cpu()} if JUDGED in batch else {}
    return {"path": batch["path"], "category": category.cpu(), **judged, **columns}


def _extremes(rows: Rows) -> Rows:
    """What `set_constants` is given: smallest, largest and mean value of each map, per image."""
    bounds: Rows = {"path": rows["path"], "category": rows["category"]}
    for name, part in maps_in(rows).items():
        values = judged_values(part, rows.get(JUDGED))
        bounds[f"{name}_min"] = torch.stack([own.amin() for own in values])
        bounds[f"{name}_max"] = torch.stack([own.amax() for own in values])
        bounds[f"{name}_mean"] = torch.stack([own.mean() for own in values])
    return bounds


@torch.inference_mode()
def _scores(detector: AnomalyDetector, rows: Rows) -> Rows:
    """Image scores and, for the pixel threshold, 1,024 evenly spaced order statistics per map."""
    parts, judged = maps_in(rows), rows.get(JUDGED)
    anomaly_map = scoring.checked_fuse(detector, parts, rows["category"])
    score = scoring.judged_score(detector, anomaly_map, parts, judged)
    pixels = [_spread(values.sort().values) for values in judged_values(anomaly_map, judged)]
    scores = {"score": score, "pixels": torch.stack(pixels)}
    return {"path": rows["path"], "category": rows["category"], **scores}


def _spread(ordered: Tensor) -> Tensor:
    """1,024 of the values (n,), the first and the last among them."""
    return ordered[torch.linspace(0, len(ordered) - 1, 1024).long()]
