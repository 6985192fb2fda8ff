"""Scores images that nobody has labelled: a table of verdicts and regions."""

import csv
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer

from data_modules.problems import Problem, raise_any
from data_modules.reading.store import make_folder
from lightning_ad.callbacks.findings import Finder
from lightning_ad.callbacks.preemption import end_on_interrupt
from lightning_ad.detector.detection import Detection
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.photograph import Finding
from lightning_ad.detector.processes import data_module, of_all_processes
from lightning_ad.reports.files import harmless, name_below
from lightning_ad.reports.pictures import picture_name
from lightning_ad.reports.verdict_table import flagged

log = logging.getLogger(__name__)

COLUMNS = (
    *("path", "score", "threshold", "anomalous", "p_value", "verdict", "regions"),
    *("category", "kind", "label", "seconds"),
)
"""Of predictions.csv."""


class Predictions(Callback):
    """predictions.csv, predictions.json and tables of regions, in `<run>/predictions`.

    What lies there of other images is renamed first. `docs/decisions.md` explains the tables; what
    takes a calibration is empty in them for a model without one.

    Args:
        save_maps: Also write each raw map (H, W) as a float32 `.npy` file.
    """

    def __init__(self, save_maps: bool = False) -> None:
        self.save_maps = save_maps
        self.finder: Finder | None = None
        self.unreadable: list[Problem] = []

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget earlier predictions; those of other images keep a folder of their own."""
        data = data_module(trainer)
        if data.arrivals is not None and trainer.world_size > 1:
            raise ValueError("--watch takes one process: set trainer.devices to 1")
        if trainer.is_global_zero:
            _set_aside(_folder(trainer), data)
        trainer.strategy.barrier()
        self.finder = Finder(trainer, _folder(trainer), "predictions.csv", COLUMNS)
        if data.arrivals is not None:
            end_on_interrupt(data.arrivals.stop)
            table = _folder(trainer) / "predictions.csv"
            log.info("watching %s until Ctrl-C, appending to %s", data.root, table)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start the clock."""
        assert self.finder is not None, "on_predict_start comes first"
        self.finder.start_clock(pl_module.device)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note what is said about a batch."""
        detector: AnomalyDetector = pl_module
        detection: Detection = outputs
        assert self.finder is not None, "on_predict_start comes first"
        findings = self.finder.find(detector, detection, batch)
        for index, (path, finding) in enumerate(zip(batch["path"], findings, strict=True)):
            name = name_below(path, data_module(trainer).root)
            if data_module(trainer).arrivals is not None:
                log.info("%s:  %s", _said(finding), name.as_posix())
            if self.save_maps:
                file = _folder(trainer) / "maps" / picture_name(name, ".npy")
                make_folder(file.parent)
                np.save(file, detection.anomaly_map[index, 0].float().cpu().numpy())

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Write the table of all processes."""
        assert self.finder is not None, "on_predict_start comes first"
        shares = of_all_processes(data_module(trainer).unreadable)  # all are through then
        self.unreadable = [problem for share in shares for problem in share]
        if trainer.is_global_zero:
            counts = self.finder.write(pl_module)
            for file in _folder(trainer).glob("predictions-until-error-*.csv"):
                file.unlink()  # all of its images are in the table
            decided = pl_module.decision.described()
            for line in [*flagged(counts), *decided]:
                log.info(line)
            log.info("predictions: %s", _folder(trainer) / "predictions.csv")
        self.finder = None

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Raise one error for the photographs that could not be read, when all else is done."""
        raise_any("scored all but these", self.unreadable)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Write what this process has scored so far."""
        if self.finder is not None:
            name = f"predictions-until-error-{trainer.global_rank}.csv"
            log.info("predictions so far: %s", self.finder.write_unfinished(name))


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "predictions"


def _set_aside(folder: Path, data: Any) -> None:
    """Rename a folder of predictions that are not of the images to be scored."""
    table = folder / "predictions.csv"
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        earlier = {row["path"] for row in csv.DictReader(file)}
    if data.arrivals is not None:
        others = any(not Path(path).is_relative_to(data.root) for path in earlier)
    else:
        others = not earlier <= {harmless(str(record.image)) for record in data.predict_records()}
    if others:
        names = (folder.with_name(f"predictions-{n}") for n in itertools.count(1))
        kept = next(name for name in names if not name.exists())
        folder.rename(kept)
        log.info("predictions of other images: %s", kept)


def _said(finding: Finding) -> str:
    if finding.threshold is None:
        return f"score {finding.score:.4g}, no threshold calibrated"
    verdict = "ANOMALOUS, above" if finding.anomalous else "normal, up to"
    return f"score {finding.score:.4g}, {verdict} {finding.threshold:.4g}"
