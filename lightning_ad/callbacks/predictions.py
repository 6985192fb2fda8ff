"""Scores images that nobody has labelled: a table, a picture and a heat map of each."""

import csv
import itertools
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer
from numpy.typing import NDArray

from data_modules.problems import raise_any
from data_modules.reading.store import make_folder
from lightning_ad.detector.detector import AnomalyDetector, Detection
from lightning_ad.detector.processes import data_module, of_all_processes
from lightning_ad.reports.drawing import Scale, heat, photograph, reconstructed, row_of, tiles_of
from lightning_ad.reports.files import harmless, name_below, write_csv
from lightning_ad.reports.pictures import picture_name, write_picture

log = logging.getLogger(__name__)

Row = tuple[str, float, float, float]
"""Path, score, threshold and whether that is passed; the last two NaN without calibration."""


class Predictions(Callback):
    """predictions.csv, and per image a panel and a heat map that mirror the tree of the data.

    All in `<run>/predictions`; what lies there of other images is renamed first. The table has
    path, score, threshold and anomalous (1 or 0), of which the last two are empty for a model
    without calibration. Colours run from 0 to twice the calibrated pixel threshold, so that they
    compare between images; without one, over each map's own range.

    Args:
        save_maps: Also write each raw map (H, W) as a float32 `.npy` file.
    """

    def __init__(self, save_maps: bool = False) -> None:
        self.save_maps = save_maps
        self.rows: list[Row] = []

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget earlier predictions; those of other images keep a folder of their own."""
        self.rows = []
        if trainer.is_global_zero:
            paths = {str(record.image) for record in data_module(trainer).predict_records()}
            _set_aside(_folder(trainer), paths)
        trainer.strategy.barrier()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the scores of a batch and draw its images."""
        detector: AnomalyDetector = pl_module
        detection: Detection = outputs
        category = detector.category_of(batch)
        thresholds = detector.image_threshold(category).tolist()
        limits = detector.pixel_threshold(category).tolist()
        folder = _folder(trainer)
        for index, path in enumerate(batch["path"]):
            score, threshold = float(detection.score[index]), thresholds[index]
            anomalous = math.nan if math.isnan(threshold) else float(score > threshold)
            self.rows.append((path, score, threshold, anomalous))
            anomaly_map = detection.anomaly_map[index, 0].float().cpu().numpy()
            scale = _scale(anomaly_map, limits[index])
            image = photograph(batch["image"][index])
            restored = reconstructed(detection.reconstruction, index)
            tiles = tiles_of(image, restored, heat(anomaly_map, scale))
            name = name_below(path, data_module(trainer).root)
            title = f"score {score:.4g}, {_verdict(anomalous, threshold)}:  {name.as_posix()}"
            write_picture(folder / "panels" / picture_name(name), row_of(tiles, title, scale))
            write_picture(folder / "heatmaps" / picture_name(name), heat(anomaly_map, scale))
            if self.save_maps:
                file = folder / "maps" / picture_name(name, ".npy")
                make_folder(file.parent)
                np.save(file, anomaly_map)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the table of all processes."""
        rows = [row for share in of_all_processes(self.rows) for row in share]
        if trainer.is_global_zero:
            _write_table(trainer, rows, "predictions.csv")
            for file in _folder(trainer).glob("predictions-until-error-*.csv"):
                file.unlink()  # all of its images are in the table
        self.rows = []
        unreadable = of_all_processes(data_module(trainer).unreadable)
        raise_any("scored all but these", [problem for share in unreadable for problem in share])

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write what this process has scored so far."""
        if self.rows:
            _write_table(trainer, self.rows, f"predictions-until-error-{trainer.global_rank}.csv")


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "predictions"


def _set_aside(folder: Path, paths: set[str]) -> None:
    """Rename a folder of predictions that are not of the images in ``paths``."""
    table = folder / "predictions.csv"
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        earlier = {row["path"] for row in csv.DictReader(file)}
    if not earlier <= {harmless(path) for path in paths}:
        names = (folder.with_name(f"predictions-{n}") for n in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        folder.rename(kept)
        log.info("predictions of other images: %s", kept)


def _write_table(trainer: Trainer, rows: list[Row], name: str) -> None:
    file = _folder(trainer) / name
    table = [
        [path, score, threshold, anomalous if math.isnan(anomalous) else int(anomalous)]
        for path, score, threshold, anomalous in sorted(rows)
    ]
    write_csv(file, ["path", "score", "threshold", "anomalous"], table)
    log.info("predictions: %s", file)


def _scale(anomaly_map: NDArray[np.float32], threshold: float) -> Scale:
    if math.isnan(threshold):
        return Scale(float(anomaly_map.min()), float(anomaly_map.max()))
    return Scale(0.0, 2 * threshold)


def _verdict(anomalous: float, threshold: float) -> str:
    if math.isnan(anomalous):
        return "no threshold calibrated"
    return f"{'ANOMALOUS, above' if anomalous else 'normal, up to'} {threshold:.4g}"
