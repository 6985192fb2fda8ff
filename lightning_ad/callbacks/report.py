"""Writes the report at the end of a test or a prediction, and logs what it shows to W&B."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger

from data_modules.problems import DataError
from lightning_ad.callbacks.evaluation import Evaluation
from lightning_ad.callbacks.plots import log_plots
from lightning_ad.detector import thresholds
from lightning_ad.detector.processes import data_module
from lightning_ad.reports.files import write_json
from lightning_ad.reports.machine import circumstances
from lightning_ad.reports.page import write_report
from lightning_ad.reports.results import EVIDENCE, EVIDENCE_FORMAT, read_results

log = logging.getLogger(__name__)


class Report(Callback):
    """report.html, with report.json, which holds what it shows that is in no other file.

    It reads what other callbacks wrote, so it comes after them. A report that cannot be written is
    a warning: all that it shows is there, and `lightning report` writes it again.

    Args:
        evaluation: of the test, whose curves are drawn; None for predictions.
    """

    def __init__(self, evaluation: Evaluation | None = None) -> None:
        self.evaluation = evaluation

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of a test."""
        if trainer.is_global_zero:
            self._write(trainer, pl_module, Path(trainer.default_root_dir))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report of a prediction."""
        if trainer.is_global_zero:
            self._write(trainer, pl_module, Path(trainer.default_root_dir) / "predictions")

    def _write(self, trainer: Trainer, detector: Any, folder: Path) -> None:
        try:
            write_json(folder / EVIDENCE, self._evidence(trainer, detector))
            results = read_results(folder)
            write_report(results)
        except (OSError, ValueError, DataError) as error:
            log.warning(
                "no report, as %s; all results are in %s, and 'lightning report %s' makes one "
                "of them",
                *(error, folder, folder),
            )
            return
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                log_plots(logger, results)

    def _evidence(self, trainer: Trainer, detector: Any) -> dict[str, Any]:
        """What the report shows beside predictions.json and metrics.json."""
        data = data_module(trainer)
        curves = self.evaluation.curves if self.evaluation else {}
        normal = thresholds.normal_scores(detector.calibration, detector.categories)
        return {
            "format": EVIDENCE_FORMAT,
            "data_set": type(data).__name__,
            "root": str(data.root),
            "scored": circumstances(detector.device),
            "trained_with": detector.trained_with or {},
            "categories": {
                name: {
                    "normal_scores": normal.get(name, normal.get(None, [])),
                    "curves": curves.get(name, {}),
                }
                for name in data.categories
            },
        }
