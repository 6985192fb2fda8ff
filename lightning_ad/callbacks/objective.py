"""A score to choose settings by that needs no label: defects pasted on held-out normal images.

Guidance weights chosen on the test set's labels make its results unfair, and nobody with good parts
only could choose any. Instead each held-out normal image is scored beside a copy with a synthetic
defect (the recipe of `data_modules.defects`); how well the two are told apart is the objective.
"""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from data_modules.catalogue import identities
from data_modules.defects import paste_defect
from data_modules.reading.dataset import as_pixels, as_tensor
from lightning_ad.detector.judged import JUDGED
from lightning_ad.metrics.detection import DetectionMetrics
from lightning_ad.reports.files import write_json


class Objective(Callback):
    """At the end of a test, logs `objective/<metric>` and writes objective.json.

    The metrics are means over the categories, as `Evaluation` defines them; no test image plays a
    part. They say nothing about real defects: choose by them, report the test's.
    """

    @torch.inference_mode()
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score held-out normal images and their defective copies."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        metrics = DetectionMetrics(data.categories).to(pl_module.device)
        names = held_out_names(data)
        for normal in data.val_dataloader():
            for batch in (normal, with_defects(normal, data.categories, names)):
                _score(batch, metrics, trainer, pl_module)
        found = metrics.compute()
        values = {
            f"objective/{key.removeprefix('mean/')}": value
            for key, value in found.items()
            if key.startswith("mean/")
        }
        # All processes have the same numbers; their maximum, unlike their mean, has no rounding.
        pl_module.log_dict(values, sync_dist=True, reduce_fx="max")
        if trainer.is_global_zero:
            write_json(Path(trainer.default_root_dir) / "objective.json", values)


def held_out_names(data: Any) -> dict[str, str]:
    """A name for the path of each held-out image, or tile of it, unique in its category."""
    names: dict[str, str] = {}
    for category in data.categories:
        records = [record for record in data.held_out_records() if record.category == category]
        images = list(dict.fromkeys(record.image for record in records))
        called = dict(zip(images, identities(images, data.root), strict=True))
        for record in records:
            part = record.name.removeprefix(str(record.image))
            names[record.name] = called[record.image] + part
    return names


def _score(
    batch: Any, metrics: DetectionMetrics, trainer: Trainer, pl_module: LightningModule
) -> None:
    batch = trainer.strategy.batch_to_device(batch)
    with trainer.precision_plugin.test_step_context():
        found: Any = pl_module.test_step(batch, 0)
    metrics.update(
        found.anomaly_map,
        batch["mask"],
        found.score,
        batch["label"],
        batch["category"],
        judged=batch.get(JUDGED),
    )


def with_defects(batch: Any, categories: list[str], names: Mapping[str, str]) -> Any:
    """A batch of normal images with one pasted defect each, and their masks and labels.

    What is pasted depends alone on the name that an image's path has in `names`, so every run and
    every number of processes sees the same defects.
    """
    pasted = [
        _paste(image, categories[category], zlib.crc32(os.fsencode(names[path])))
        for image, category, path in zip(
            batch["image"], batch["category"].tolist(), batch["path"], strict=True
        )
    ]
    return {
        **batch,
        "image": torch.stack([image for image, _ in pasted]),
        "mask": torch.stack([mask for _, mask in pasted]),
        "label": torch.ones_like(batch["label"]),
    }


def _paste(image: Tensor, category: str, seed: int) -> tuple[Tensor, Tensor]:
    """A defective copy of an image (3, H, W) in [-1, 1] and its mask (1, H, W)."""
    defective, mask = paste_defect(as_pixels(image), category, np.random.default_rng(seed))
    return as_tensor(defective), torch.from_numpy(mask)[None]
