"""A detector that reads the answer from the image, and images to put it to the test."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_modules.reading.dataset import Framing
from data_modules.reading.samplers import EveryItemOnce
from data_modules.records import Record
from lightning_ad.detector.detector import AnomalyDetector

CATEGORIES = ["bottle", "cable"]
SIZE = 32
PHOTOGRAPH = (40, 64)
"""Height and width of the photographs that the images stand for."""


class Images(Dataset[dict[str, Any]]):
    """Noise, redder where the defect is; two of three images are defective."""

    def __init__(self, count: int, root: Path) -> None:
        self.count = count
        self.root = root

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(3, SIZE, SIZE, generator=generator) - 0.5
        mask = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8)
        label, category = int(index % 3 > 0), index % 2
        if label:
            mask[:, 4 + index % 9 : 14 + index % 9, 8:13] = 1
            image[0] += 0.4 * mask[0]
        folder = self.root / CATEGORIES[category] / "test" / ("broken" if label else "good")
        path = str(folder / f"{index:03d}.png")
        return {
            **{"image": image, "mask": mask, "label": label},
            **{"category": category, "path": path, "kind": "broken" if label else "good"},
            "size": torch.tensor(PHOTOGRAPH),
        }


class Data(LightningDataModule):
    image_size, mask_rule = SIZE, "half"
    arrivals = region = None

    def __init__(self, count: int, root: Path, has_masks: bool = True, once: bool = True) -> None:
        super().__init__()
        self.root, self.has_masks, self.once = root, has_masks, once
        self.categories, self.unreadable = CATEGORIES, []
        self.images = Images(count, root)
        for record in self.records_of("test"):
            record.image.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(record.image), np.full((*PHOTOGRAPH, 3), (0, 90, 250), np.uint8))

    def records_of(self, split: str) -> list[Record]:
        assert split == "test"
        items = [self.images[index] for index in range(len(self.images))]
        return [
            Record(
                Path(item["path"]), None, item["label"], "test",
                CATEGORIES[item["category"]], item["kind"],
            )
            for item in items
        ]  # fmt: skip

    def files_hash(self, split: str) -> str:
        return f"the files of {split}"

    def fingerprint_fields(self) -> dict[str, Any]:
        return {"categories": self.categories, "images": len(self.images)}

    def test_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        place = self.trainer.global_rank, self.trainer.world_size
        sampler = EveryItemOnce(self.images, *place) if self.once else [0, 1, 1, 2]
        return DataLoader(self.images, batch_size=4, sampler=sampler)

    def predict_dataloader(self) -> DataLoader:
        return self.test_dataloader()

    def predict_records(self) -> list[Record]:
        return self.records_of("test")


class Detector(AnomalyDetector):
    """Takes red for the anomaly; with a threshold, the same for images and pixels."""

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.framing = Framing(SIZE, SIZE, ())
        if threshold is not None:
            for level in ("image", "pixel"):
                rows = len(CATEGORIES) + 1
                self.calibration[f"{level}_threshold"] = torch.full((rows,), threshold)

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return image / 2, {"red": image[:, :1]}


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    settings = {"accelerator": "cpu", "devices": 1, "logger": False, **options}
    return Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **settings,
    )
