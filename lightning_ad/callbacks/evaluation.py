"""Computes, logs, prints and writes the metrics of a test, the same way for every method."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from data_modules.catalogue import names_hash
from lightning_ad.callbacks.findings import Finder
from lightning_ad.detector.detection import Detection
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.judged import JUDGED
from lightning_ad.detector.photograph import Finding
from lightning_ad.detector.processes import data_module, of_all_processes
from lightning_ad.metrics.aupro import check_limit
from lightning_ad.metrics.counts import require_finite
from lightning_ad.metrics.detection import METRICS_VERSION, DetectionMetrics
from lightning_ad.metrics.verdicts import ImageVerdict, count_verdicts
from lightning_ad.reports.files import (
    PARTS,
    fingerprint,
    metric_rows,
    name_below,
    results_table,
    write_csv,
    write_json,
)
from lightning_ad.reports.verdict_table import verdicts_table

SCORES = ("path", "category", "label", "score", "kind", "threshold", "p_value", "verdict")
"""Columns of scores.csv; none differs between two tests of one model."""

log = logging.getLogger(__name__)


class Evaluation(Callback):
    """Metrics per category and their mean, in every logger, on the screen and in the run folder.

    Logs `test/<category>/<metric>` and `test/mean/<metric>`. At the end the first process prints
    one table and writes metrics.json, metrics.csv, scores.csv, predictions.json, regions.csv and
    regions.coco.json into the trainer's `default_root_dir`. A test image that
    was counted twice, as Lightning's own distributed sampler would have it, is an error.
    `Trainer.test(..., verbose=False)` spares Lightning's own table.

    Args:
        fpr_limit: False-positive rate at which the AUPRO integral ends, in (0, 1].
        exact: Rank every distinct pixel score instead of about 10^5 bins; the memory then grows
            with the test set, 32 bytes per pixel.
        at: Where pixels are counted: on the `map`, to which masks are resized, or on the `mask`
            as its author drew it, to which maps are.
    """

    def __init__(
        self, fpr_limit: float = 0.3, exact: bool = False, at: Literal["map", "mask"] = "map"
    ) -> None:
        check_limit(fpr_limit)
        if at not in ("map", "mask"):
            raise ValueError(f"evaluation.at must be map or mask, not {at}")
        self.fpr_limit = fpr_limit
        self.exact = exact
        self.at = at

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with empty counts for the data module's categories."""
        data = data_module(trainer)
        self.finder = Finder(trainer, Path(trainer.default_root_dir), "scores.csv", SCORES)
        self.metrics = DetectionMetrics(
            data.categories, self.fpr_limit, self.exact, data.has_masks
        ).to(pl_module.device)
        self.scored: list[ImageVerdict] = []
        self.unmarked: list[str] = []

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start the clock."""
        self.finder.start_clock(pl_module.device)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count the batch; no communication, as processes may have different numbers of batches."""
        detector: Any = pl_module
        detection: Detection = outputs
        findings = detector.findings_of(detection, batch)
        count = self._count_at_map if self.at == "map" else self._count_at_masks
        marked, hidden = count(detection, batch, findings, data_module(trainer))
        self.finder.find(detector, detection, batch, hidden)
        label, path = batch["label"].tolist(), batch["path"]
        names = [self.metrics.categories[index] for index in batch["category"].tolist()]
        verdicts = [finding.verdict for finding in findings]
        lines = zip(path, names, batch["kind"], label, verdicts, strict=True)
        self.scored += [ImageVerdict(*line) for line in lines]
        shown = zip(path, marked, label, strict=True)
        self.unmarked += [
            name for name, is_marked, defective in shown if defective and not is_marked
        ]

    def _count_at_map(
        self, detection: Detection, batch: Any, findings: list[Finding], data: Any
    ) -> tuple[list[bool], list[bool]]:
        """Count a batch where its maps have pixels.

        Whether any is marked in each image, and whether all of these are where nothing is judged.
        """
        mask, judged = batch["mask"].bool(), batch.get(JUDGED)
        seen = mask if judged is None else mask & judged.bool()
        marked, seen_marked = (each.flatten(1).any(1) for each in (mask, seen))
        hidden = marked & ~seen_marked
        self.metrics.update(
            detection.anomaly_map,
            mask,
            detection.score,
            batch["label"],
            batch["category"],
            batch["path"],
            judged,
            ~hidden,
        )
        return marked.tolist(), hidden.tolist()

    def _count_at_masks(
        self, detection: Detection, batch: Any, findings: list[Finding], data: Any
    ) -> tuple[list[bool], list[bool]]:
        """The same where masks have pixels, image by image, as their sizes differ."""
        require_finite(detection.anomaly_map, batch["path"])
        marked, hidden = [], []
        for index, finding in enumerate(findings):
            one, path = slice(index, index + 1), batch["path"][index]
            values = torch.from_numpy(finding.anomaly_map)[None, None]
            judged = ~values.isnan()
            mask = torch.from_numpy(data.true_mask(path, values.shape[2:]))[None, None].bool()
            marked.append(bool(mask.any()))
            hidden.append(marked[-1] and not bool((mask & judged).any()))
            device = detection.score.device
            self.metrics.update(
                values.nan_to_num().to(device),
                mask.to(device),
                detection.score[one],
                batch["label"][one],
                batch["category"][one],
                [path],
                judged.to(device),
                torch.tensor([not hidden[-1]], device=device),
            )
        return marked, hidden

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge the counts and scores of all processes and log the metrics."""
        self.results = self.metrics.compute()
        self.curves = self.metrics.curves()
        self.scored = sorted(image for share in of_all_processes(self.scored) for image in share)
        _require_once(self.scored)
        self.unmarked = sorted(path for share in of_all_processes(self.unmarked) for path in share)
        # The same on all processes; of these the maximum, unlike the mean, is not rounded.
        logged = {f"test/{name}": value for name, value in self.results.items()}
        pl_module.log_dict(logged, sync_dist=True, reduce_fx="max")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table and write the files, from the first process."""
        if trainer.is_global_zero:
            definition = self._definition(trainer, pl_module)
            for logger in trainer.loggers:
                logger.log_hyperparams({"fingerprint": definition["fingerprint"]})
            speed = _speed(trainer)
            definition["test_files"] = data_module(trainer).files_hash("test")
            self.verdicts = count_verdicts(self.scored, self.metrics.categories)
            folder = Path(trainer.default_root_dir)
            detector: Any = pl_module
            self._write(folder, definition, detector.decision.source() | speed)
            self.finder.write(detector, definition["fingerprint"])
            self.finder.forget()
            self._tell_unmarked(data_module(trainer).has_masks)
            self._print(definition, speed, detector)
        del self.metrics, self.scored, self.unmarked, self.finder

    def _definition(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What the numbers depend on beside the model, flat, with its fingerprint."""
        data = data_module(trainer).fingerprint_fields()
        fields = (
            {
                "protocol": getattr(pl_module, "protocol", "default"),
                "metrics_version": METRICS_VERSION,
                "fpr_limit": self.fpr_limit,
                "exact": self.exact,
            }
            | ({"at": self.at} if self.at != "map" else {})
            | {
                f"data.{name}": " ".join(value) if isinstance(value, list) else value
                for name, value in data.items()
            }
        )
        fields |= self._part(trainer)
        title = type(pl_module).__name__
        if isinstance(pl_module, AnomalyDetector):
            title = pl_module.title
            fields |= pl_module.fingerprint_fields(data_module(trainer))
        return {"fingerprint": fingerprint(fields), "method": title} | fields

    def _part(self, trainer: Trainer) -> dict[str, Any]:
        """What was scored, where that is not the whole test, for whatever reason."""
        listed = len(trainer.test_dataloaders.dataset)  # type: ignore[union-attr]
        if len(self.scored) == listed:
            return {}
        root = data_module(trainer).root
        names = sorted(name_below(image.path, root).as_posix() for image in self.scored)
        return {"part": f"{len(names)} of {listed} test images", "part_names": names_hash(names)}

    def _write(self, folder: Path, definition: dict[str, Any], more: dict[str, Any]) -> None:
        logged = {f"test/{name}": value for name, value in self.results.items()}
        verdicts = {
            f"verdicts/{category}/{name}": value
            for category, counts in self.verdicts.items()
            for name, value in counts.fields().items()
        }
        images = {"images": len(self.scored)}
        write_json(folder / "metrics.json", logged | more | images | verdicts | definition)
        names, rows, titles = metric_rows(self.results)
        lines = [[title, *row] for title, row in zip(titles, rows, strict=True)]
        write_csv(folder / "metrics.csv", ["category", *names], lines)
        log.info(
            "metrics: %s (also metrics.csv, scores.csv, predictions.json)", folder / "metrics.json"
        )

    def _tell_unmarked(self, has_masks: bool) -> None:
        """Warn of defective images of which no pixel is marked at the size that was scored."""
        if has_masks and self.unmarked:
            log.warning(
                "no pixel is marked in %d defective image(s), all of whose pixels count as normal: "
                "%s. Their masks are black, or mark less than a pixel at data.image_size",
                len(self.unmarked),
                ", ".join(self.unmarked[:3]) + (", ..." if len(self.unmarked) > 3 else ""),
            )

    def _print(
        self, definition: dict[str, Any], speed: dict[str, float], detector: AnomalyDetector
    ) -> None:
        caption = f"protocol {definition['protocol']}, fingerprint {definition['fingerprint']}"
        caption += "".join(f"\nonly {definition[name]}" for name in PARTS if name in definition)
        if speed:
            rate, duration = speed.values()
            caption += f"\n{rate:,.1f} images/s, {duration:,.1f} ms per image"
        counts = Counter(image.category for image in self.scored)
        console = Console(markup=False, emoji=False)  # names of categories are no markup
        console.print(results_table(self.results, counts, caption))
        if self.verdicts:
            console.print(verdicts_table(self.verdicts, detector.decision.described()))


def _require_once(scored: list[ImageVerdict]) -> None:
    repeated = [
        path for path, count in Counter(image.path for image in scored).items() if count > 1
    ]
    if repeated:
        raise ValueError(
            f"{len(repeated)} test image(s) were scored more than once, among them {repeated[0]}: "
            "the metrics would count them twice. Give the test loader a sampler that repeats none."
        )


def _speed(trainer: Trainer) -> dict[str, float]:
    """The throughput that was logged before, if it was."""
    names = ("test/images_per_second", "test/milliseconds_per_image")
    logged = trainer.callback_metrics
    return {name: float(torch.as_tensor(logged[name])) for name in names if name in logged}
