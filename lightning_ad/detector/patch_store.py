"""Patches of the training images on disk: the backbone sees an image once, not once an epoch.

What a frozen backbone and a space of its features (see `lightning_ad.maths.patches`) make of an
image never changes, and training draws only some patches of it at a time. The points of all patches
are computed once, by whichever process comes first, written in half precision, mapped into memory
and shared by all processes; the space's axes lie beside them.

A file's name holds a hash of the images, their sizes and modification times, the backbone, its
layers and the space's settings. It may be removed at any time; damaged, it is written again.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from data_modules.reading.samplers import Draw
from data_modules.reading.store import digest, file_stamp, mapped, stored_rows
from lightning_ad.detector.checkpoint import hashed
from lightning_ad.detector.feature_space import FeatureSpaceDetector
from lightning_ad.detector.processes import of_all_processes
from lightning_ad.maths.patches import PatchSpace

STEPS = 100
"""Steps of an epoch."""
FORMAT = 2  # raise it whenever the same images and weights would give other files
ADVICE = "set data.cache_dir to a folder on a larger disk"


class PatchStore(Dataset[dict[str, Any]]):
    """Random patches of training images: `STEPS` batches an epoch, however many images there are.

    An item is ``patches`` (n, K) of one image, their ``place`` (n,) row by row, and the image's
    ``category``. Images take turns. Which patches an item has depends on the seed, the epoch and
    its number only.

    Args:
        detector: frozen features, with their weights, and settings of the space; learns its axes.
        datamodule: an `AnomalyDataModule`; the files lie in its ``cache_dir``.
        per_item: n.

    Raises:
        DataError: if the disk has too little room.
    """

    def __init__(self, detector: FeatureSpaceDetector, datamodule: Any, per_item: int) -> None:
        self._detector, self._datamodule = detector, datamodule
        self._images = datamodule.memory_dataloader().dataset
        name, key = datamodule.data_set, self._key()[:16]
        detector.take_space(self._space(datamodule.cache_dir / f"axes-{name}-{key}.npy"))
        self.points = stored_rows(
            datamodule.cache_dir / f"patches-{name}-{key}.npy",
            len(self._images),
            self._encoded,
            "patches' features",
            ADVICE,
        )
        self._per_item, self._seed = per_item, datamodule.seed
        self._items = STEPS * datamodule.train_batch_size * datamodule.trainer.world_size
        numbers = {category: number for number, category in enumerate(datamodule.categories)}
        self._categories = [numbers[record.category] for record in self._images.records]
        del self._detector, self._datamodule

    def __len__(self) -> int:
        return self._items

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        row = draw.item % len(self.points)
        generator = np.random.default_rng([self._seed, draw.epoch, draw.item])
        place = generator.integers(self.points.shape[1], size=self._per_item)
        return {
            "patches": torch.from_numpy(self.points[row, place]),
            "place": torch.from_numpy(place),
            "category": self._categories[row],
        }

    def _key(self) -> str:
        first = self._images[0]["image"]
        # The first image stands for whatever decides pixels besides files and the way that shapes
        # are fitted: resizing, cropping.
        layout = self._images.framing.layout
        stamps = [file_stamp(record.image) for record in self._images.records]
        settings = (self._detector.components, self._detector.whitening, *self._detector.channels)
        weights = digest(*hashed(self._detector.features))
        return digest(FORMAT, weights, settings, *layout, first.numpy().tobytes(), *stamps)

    def _space(self, path: Path) -> PatchSpace:
        """The space, from its file or, each process looking at its share, from the images."""
        if any(of_all_processes(mapped(path) is None)):
            space = self._fitted()
            rows = torch.cat([space.mean[:, None], space.projection], 1).numpy()
            stored_rows(path, len(rows), lambda: [rows], "axes of features", ADVICE)
        axes = torch.from_numpy(np.load(path))
        return PatchSpace(axes[:, 0], axes[:, 1:])

    def _fitted(self) -> PatchSpace:
        sample, device = self._detector.sample(), self._detector.device
        loader = self._datamodule.memory_dataloader()
        with torch.inference_mode():
            for batch in track(loader, "sampling patches", console=Console(stderr=True)):
                sample.observe(batch["image"].to(device), batch["category"], batch["path"])
        sample.finish()
        return self._detector.fitted_space(sample)

    def _encoded(self) -> Iterator[NDArray[np.float16]]:
        """Points (B, P, K)."""
        loader: DataLoader = DataLoader(
            self._images,
            self._datamodule.eval_batch_size,
            num_workers=self._datamodule.num_workers,
        )
        with torch.inference_mode():
            for batch in track(loader, "computing features", console=Console(stderr=True)):
                points = self._detector.points(batch["image"].to(self._detector.device))
                yield points.flatten(2).transpose(1, 2).half().cpu().numpy()
