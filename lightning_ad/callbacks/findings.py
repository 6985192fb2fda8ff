"""Keeps what a detector says about each image of a test or a prediction, batch by batch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_ad.detector.detection import Detection
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.photograph import Finding
from lightning_ad.detector.processes import data_module
from lightning_ad.reports.files import name_below
from lightning_ad.reports.predictions_file import (
    BEFORE,
    LEDGER,
    WATCHED,
    Findings,
    Ledger,
    append_row,
    write_findings,
    write_table,
)
from lightning_ad.speed.clock import now


class Finder:
    """Finds verdict and regions of each image of a batch, fills the ledger.

    Args:
        trainer: of the test or the prediction.
        folder: where results go.
        table: name of the CSV file of all images, with these ``columns``.
        by: what images are scored by, where a prediction may go on, see `scored_before`.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: Path,
        table: str,
        columns: Sequence[str],
        by: str | None = None,
    ) -> None:
        self._folder, self._data = folder, data_module(trainer)
        self._table, self._columns = folder / table, columns
        self._watches = self._data.arrivals is not None
        own = folder / (WATCHED if self._watches else LEDGER.format(trainer.global_rank))
        if not self._watches:
            own.unlink(missing_ok=True)
        self._ledger = Ledger(own, by)
        ranks = [folder / LEDGER.format(rank) for rank in range(trainer.world_size)]
        before = [folder / BEFORE] if (folder / BEFORE).exists() else []
        self._ledgers = [own] if self._watches else [*before, *ranks]
        self._so_far = [*(before if trainer.is_global_zero else []), own]
        if self._watches:
            write_table(self._table, columns, Findings(self._ledgers))
        self._started = 0.0

    def start_clock(self, device: torch.device) -> None:
        """A batch is about to be scored."""
        self._started = now(device)

    def find(
        self,
        detector: AnomalyDetector,
        detection: Detection,
        batch: Any,
        out_of_sight: Sequence[bool] = (),
    ) -> list[Finding]:
        """What is said about each image of a `DescribedBatch`, written down as well.

        No verdict is given on images whose defects are ``out_of_sight``.
        """
        seconds = (now(detector.device) - self._started) / len(batch["path"])
        findings = detector.findings_of(detection, batch)
        for index, hidden in enumerate(out_of_sight):
            if hidden and findings[index].verdict is not None:
                findings[index] = replace(findings[index], verdict="not judged")
        for index, finding in enumerate(findings):
            self._write(finding, _described(batch, index, self._data), seconds)
        return findings

    def write(
        self, detector: AnomalyDetector, fingerprint: str | None = None
    ) -> Counter[tuple[str, str | None]]:
        """Put together what all processes found, when they are through; by the first one.

        Returns the number of images by category and verdict. `forget` ends it.
        """
        about = {
            "method": detector.title,
            "fingerprint": fingerprint,
            "root": str(self._data.root),
            **detector.decision.source(),
        }
        return write_findings(self._folder, self._ledgers, about, self._table, self._columns)

    def forget(self) -> None:
        """Remove the ledgers, of which nothing is needed any more; one that is watched stays."""
        for ledger in [] if self._watches else self._ledgers:
            ledger.unlink()

    def lines(self) -> Findings:
        """What all processes found."""
        return Findings(self._ledgers)

    def write_unfinished(self, table: str) -> Path:
        """Write what this process has found so far; where that lies."""
        file = self._folder / table
        try:
            write_table(file, self._columns, Findings(self._so_far))
        except OSError:  # the disk is full, or gone
            return self._ledger.file
        return file

    def _write(self, finding: Finding, described: dict[str, Any], seconds: float) -> None:
        file = described.pop("file")
        said = {**described, **finding.said(), "seconds": seconds}
        line = self._ledger.add(file, said, finding.regions)
        if self._watches:
            append_row(self._table, self._columns, line)


def _described(batch: Any, index: int, data: Any) -> dict[str, Any]:
    file, label = batch["path"][index], int(batch["label"][index])
    return {
        "file": file,
        "path": name_below(file, data.root).as_posix(),
        "category": data.categories[int(batch["category"][index])],
        "kind": batch["kind"][index] or None,
        "label": None if label < 0 else label,
        "size": batch["size"][index].tolist(),
    }
