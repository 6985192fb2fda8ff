"""Calibration from held-out normal images: what a score needs beside trained weights.

After training, normal images that were never trained on pass once through the detector. They give
the constants that fuse its distance maps, its memory of training images where it keeps one, and
thresholds with a stated false-alarm rate (split conformal prediction, arXiv 2107.07511): of new
normal images at most that share scores above. Everything lands in the checkpoint, so that one
image can be scored alone, anywhere, with the same result. Test images play no part.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from data_modules import AnomalyDataModule
    from lightning_ad.detector.detector import AnomalyDetector


class NotCalibratedError(RuntimeError):
    """A detector scores images before it knows what only calibration tells."""


class Calibration(nn.Module):
    """Named tensors that travel with a detector and load whatever their shapes."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._buffers:
            raise NotCalibratedError(
                f"this detector has no calibrated '{name}': run all phases of 'lightning fit', "
                "or load the final.ckpt that it writes (a new method sets it in `calibrate`)"
            )
        return self.get_buffer(name)

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]:
            self[name] = state_dict[prefix + name].clone()
        for name in [key for key in self._buffers if prefix + key not in state_dict]:
            del self._buffers[name]


def conformal_quantile(scores: Tensor, false_alarm_rate: float) -> float:
    """Threshold above which at most ``false_alarm_rate`` of new normal scores fall.

    The ceil((n + 1)(1 - rate))-th smallest of the n calibration scores (arXiv 2107.07511, eq. 1).
    Too few scores for the rate give the largest one.
    """
    rank = math.ceil((len(scores) + 1) * (1 - false_alarm_rate))
    return float(scores.sort().values[min(rank, len(scores)) - 1])


def calibrate(
    detector: "AnomalyDetector", trainer: Trainer, datamodule: "AnomalyDataModule"
) -> None:
    """Fill ``detector.calibration`` from the training images and the held-out normal images.

    Runs inside ``trainer``, on its devices, precision and processes; every process ends with the
    same numbers.
    """
    detector.calibration = Calibration()
    if detector.remembers:
        memory = datamodule.memory_dataloader()
        remembered = _gather(_Pass(detector, detector.memorize).run(trainer, memory))
        device = trainer.strategy.root_device  # images may be compared with each other there
        detector.build_memory(remembered["features"].to(device), remembered["category"].to(device))
        detector.calibration.cpu()
    normals = datamodule.val_dataloader()
    compared = _Pass(detector, lambda *batch: detector.checked_compare(*batch)[1]).run(
        trainer, normals
    )
    if not _count(compared):
        raise RuntimeError("no held-out normal images to calibrate on: raise data.val_fraction")
    detector.calibrate(_gather([_extremes(rows) for rows in compared]))
    scored = _gather([_scores(detector, rows) for rows in compared])
    _set_thresholds(detector, scored)


Rows = dict[str, Any]
"""Columns over some images: ``path`` (list), ``category`` (n,) and tensors (n, ...) by name."""


class _Pass(LightningModule):
    """One pass of ``look(image, category)`` over a loader, inside a Trainer."""

    def __init__(
        self, detector: "AnomalyDetector", look: Callable[[Tensor, Tensor], dict[str, Tensor]]
    ) -> None:
        super().__init__()
        self.detector, self.look = detector, look

    def on_predict_start(self) -> None:
        self.detector.prepare_inference()

    def predict_step(self, batch: Any, batch_idx: int) -> Rows:
        category = self.detector.category_of(batch)
        seen = self.look(batch["image"], category)
        columns = {name: value.cpu() for name, value in seen.items()}
        return {"path": batch["path"], "category": category.cpu(), **columns}

    def run(self, trainer: Trainer, loader: "DataLoader") -> list[Rows]:
        """Rows of this process's share of the images, one entry per batch."""
        return trainer.predict(self, loader) or []  # type: ignore[return-value]


def _columns(rows: Rows) -> dict[str, Tensor]:
    return {name: value for name, value in rows.items() if name not in ("path", "category")}


def _count(batches: list[Rows]) -> int:
    return sum(len(rows["path"]) for shares in _all_processes(batches, "path") for rows in shares)


def _extremes(rows: Rows) -> Rows:
    """Smallest and largest value of each map, ``<part>_min`` and ``<part>_max``, per image."""
    flat = {name: part.flatten(1) for name, part in _columns(rows).items()}
    bounds = {f"{name}_min": part.amin(1) for name, part in flat.items()}
    bounds |= {f"{name}_max": part.amax(1) for name, part in flat.items()}
    return {"path": rows["path"], "category": rows["category"], **bounds}


@torch.inference_mode()
def _scores(detector: "AnomalyDetector", rows: Rows) -> Rows:
    """Image scores and, for the pixel threshold, 1,024 evenly spaced order statistics per map."""
    anomaly_map = detector.checked_fuse(_columns(rows), rows["category"])
    ordered = anomaly_map.flatten(1).sort(1).values
    picks = torch.linspace(0, ordered.shape[1] - 1, 1024).long()
    scores = {"score": detector.score(anomaly_map), "pixels": ordered[:, picks]}
    return {"path": rows["path"], "category": rows["category"], **scores}


def _all_processes(batches: list[Rows], *names: str) -> list[list[Rows]]:
    mine = [{name: rows[name] for name in names} if names else rows for rows in batches]
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    shares: list[list[Rows]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(shares, mine)
    return shares


def _gather(batches: list[Rows]) -> dict[str, Tensor]:
    """Columns (N, ...) over the images of all processes, in the order of their paths.

    The order makes every later sum the same for any number of processes.
    """
    everyone = [rows for share in _all_processes(batches) for rows in share]
    paths = [path for rows in everyone for path in rows["path"]]
    order = torch.tensor(sorted(range(len(paths)), key=paths.__getitem__), dtype=torch.long)
    names = [name for name in everyone[0] if name != "path"]
    return {name: torch.cat([rows[name] for rows in everyone])[order] for name in names}


def _set_thresholds(detector: "AnomalyDetector", scored: dict[str, Tensor]) -> None:
    """One threshold per category, and a last one over all for images of no known category."""
    rate = detector.false_alarm_rate
    fewest = int(scored["category"].bincount().min())
    if (fewest + 1) * rate < 1:
        rank_zero_warn(
            f"{fewest} held-out normal images of a category vouch for a false-alarm rate of "
            f"{1 / (fewest + 1):.2g}, not for {rate:g} (model.false_alarm_rate): the threshold is "
            "the largest score seen; a larger data.val_fraction holds out more"
        )
    for level, values in (("image", scored["score"]), ("pixel", scored["pixels"])):
        groups = [values[scored["category"] == i] for i in range(len(detector.categories))]
        thresholds = [conformal_quantile(group.flatten(), rate) for group in [*groups, values]]
        detector.calibration[f"{level}_threshold"] = torch.tensor(thresholds)
