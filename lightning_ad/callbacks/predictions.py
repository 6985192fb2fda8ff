"""Scores images that nobody has labelled: a table of verdicts and regions."""

import csv
import itertools
import logging
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from lightning.pytorch import Callback, Trainer

from data_modules.problems import Problem, raise_any
from data_modules.reading.store import make_folder
from lightning_ad.callbacks.findings import Finder
from lightning_ad.callbacks.panels import panel_of
from lightning_ad.callbacks.preemption import end_on_interrupt
from lightning_ad.detector.detection import Detection
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.photograph import Finding
from lightning_ad.detector.processes import data_module, of_all_processes
from lightning_ad.reports.files import harmless, name_below
from lightning_ad.reports.pictures import picture_name
from lightning_ad.reports.predictions_file import LEDGER, Findings, Line, scored_before
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

    scored_by: str | None = None
    """Stands for all that decides what is found of an image. Told this, a prediction goes on where
    one by the same was interrupted, with images that have neither result nor panel yet."""

    def __init__(self, save_maps: bool = False) -> None:
        self.save_maps = save_maps
        self.finder: Finder | None = None
        self.unreadable: list[Problem] = []

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Let the data leave out what was scored before; earlier results keep their folder."""
        data, folder = data_module(trainer), _folder(trainer)
        if data.arrivals is not None and trainer.world_size > 1:
            raise ValueError("--watch takes one process: set trainer.devices to 1")
        known = set[str]()
        if trainer.is_global_zero:
            _set_aside(folder, data)
            if data.arrivals is None:
                known = scored_before(folder, self.scored_by, self._is_whole(folder))
        data.scored_before = trainer.strategy.broadcast(known)
        if known:
            log.info("going on: %d images were scored before, in %s", len(known), folder)

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget earlier predictions of the same images, but those to go on with."""
        data, folder = data_module(trainer), _folder(trainer)
        self.finder = Finder(trainer, folder, "predictions.csv", COLUMNS, self.scored_by)
        if data.arrivals is not None:
            end_on_interrupt(data.arrivals.stop)
            table = folder / "predictions.csv"
            log.info("watching %s until Ctrl-C, appending to %s", data.root, table)

    def _is_whole(self, folder: Path) -> Callable[[Line], bool]:
        """Whether there is all in a folder that goes with an image's line."""

        def is_whole(line: Line) -> bool:
            name = PurePath(line["image"]["path"])
            has_map = not self.save_maps or _map_of(folder, name).exists()
            return has_map and panel_of(folder, name).exists()

        return is_whole

    def on_predict_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Start the clock."""
        assert self.finder is not None, "on_predict_start comes first"
        self.finder.start_clock(pl_module.device)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
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
                file = _map_of(_folder(trainer), name)
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
            if self.scored_by is None or all(
                map(self._is_whole(_folder(trainer)), self.finder.lines())
            ):
                self.finder.forget()  # else the next prediction draws what is missing
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


def _map_of(folder: Path, name: PurePath) -> Path:
    """Where the raw map of an image goes."""
    return folder / "maps" / picture_name(name, ".npy")


def _set_aside(folder: Path, data: Any) -> None:
    """Rename a folder of predictions that are not of the images to be scored."""
    table, earlier = folder / "predictions.csv", set[str]()
    if table.exists():
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            earlier = {row["path"] for row in csv.DictReader(file)}
    earlier |= {harmless(file) for file in Findings(sorted(folder.glob(LEDGER.format("*")))).files}
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
