"""Latents of a data set on disk: frozen autoencoders encode an image once, not once an epoch.

The autoencoder is most of the work of training in latents. Each image that enters training is
encoded once, written to a file that is mapped into memory, and shared by all processes. Where
images are cropped at random or augmented, some views of each are: those that the first epochs would
draw. What is done to pixels is never done to latents instead: an encoder sees the border of an
image, so that a crop of a latent is not the latent of a crop, and a detector trained on the former
takes every border for a defect.

A file's name holds a hash of the images, their sizes and modification times, of how they are
varied, and of the autoencoder's weights. It may be removed at any time; damaged, it is written
again.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.reading.samplers import Draw
from data_modules.reading.store import digest, file_stamp, stored_rows
from lightning_ad.detector.checkpoint import hashed
from lightning_ad.networks.autoencoders import Autoencoder

FORMAT = 2  # raise it whenever the same images and weights would give another file


class LatentCache:
    """Latents of the training images and of the held-out images of a data module.

    The first process to come encodes what is not on disk, with a progress bar; others wait.

    Args:
        autoencoder: frozen, with its weights.
        datamodule: an `AnomalyDataModule`; the files lie in its ``cache_dir``.
        views: how many views are kept of a training image that is cropped at random or augmented.

    Raises:
        DataError: if the disk has too little room.
    """

    def __init__(self, autoencoder: Autoencoder, datamodule: Any, views: int) -> None:
        weights = digest(type(autoencoder).__name__, autoencoder.scale, *hashed(autoencoder))
        views = views if datamodule.framing.varies else 1
        self.files = [
            _LatentFile(autoencoder, weights, loader.dataset, datamodule, count)
            for loader, count in (
                (datamodule.train_dataloader(), views),
                (datamodule.val_dataloader(), 1),
            )
        ]

    def draw(self, paths: Sequence[str], device: torch.device, sample: bool = True) -> Tensor:
        """Latents (B, C, h, w) of the images in ``paths``: samples of the posterior, or its means.

        Each of any view of its image.
        """
        file = next(file for file in self.files if paths[0] in file.rows)
        mean, *std = file.read(paths, device).unbind(1)
        return mean + std[0] * torch.randn_like(mean) if sample and std else mean


class _LatentFile:
    """Posteriors of views of a dataset's images, float32 (V N, 2, C, h, w): mean and deviation.

    Only the mean, (V N, 1, C, h, w), of a deterministic autoencoder.
    """

    def __init__(
        self, autoencoder: Autoencoder, weights: str, dataset: Any, datamodule: Any, views: int
    ) -> None:
        paths = [record.name for record in dataset.records]
        self.rows = {path: row for row, path in enumerate(paths)}
        self.views = views
        draws = [Draw(item, view) for view in range(views) for item in range(len(dataset))]
        # What an image becomes is decided by its file, by what varies it, by how its shape is
        # fitted, and by what the first image stands for: resizing, cropping.
        varied = (views, datamodule.framing, dataset.seed) if views > 1 else ()
        first = dataset[draws[0]]["image"]
        stamps = [file_stamp(record.image) for record in dataset.records]
        shown = (tuple(first.shape), first.numpy().tobytes())
        key = digest(FORMAT, weights, *varied, *dataset.framing.layout, *shown, *stamps)
        self.path = datamodule.cache_dir / f"latents-{datamodule.data_set}-{key[:16]}.npy"
        self.latents = stored_rows(
            self.path,
            len(draws),
            lambda: _encoded(autoencoder, dataset, draws, datamodule),
            "latents",
            "set data.cache_dir to a folder on a larger disk, or model.cache_latents to false",
        )

    def read(self, paths: Sequence[str], device: torch.device) -> Tensor:
        """Posteriors (B, 1 or 2, C, h, w) of images, each of a view drawn at random."""
        view = torch.randint(self.views, (len(paths),)).tolist()
        rows = [self.rows[path] + v * len(self.rows) for path, v in zip(paths, view, strict=True)]
        return torch.from_numpy(self.latents[rows]).to(device)


def _encoded(
    autoencoder: Autoencoder, dataset: Any, draws: list[Draw], datamodule: Any
) -> Iterator[NDArray[np.float32]]:
    """Posteriors of images as they are drawn, batch by batch, with a progress bar."""
    loader: DataLoader = DataLoader(
        dataset,
        datamodule.eval_batch_size,
        sampler=draws,  # type: ignore[arg-type]  # items of this dataset
        num_workers=datamodule.num_workers,
    )
    for batch in track(loader, "encoding images", console=Console(stderr=True)):
        yield _posterior(autoencoder, batch["image"])


@torch.inference_mode()
def _posterior(autoencoder: Autoencoder, image: Tensor) -> NDArray[np.float32]:
    """Mean, and standard deviation if there is any, of images (B, 3, H, W)."""
    device = next(autoencoder.parameters()).device
    mean, std = autoencoder.posterior(image.to(device))
    both = torch.stack([mean, std], 1).float() if std.any() else mean.unsqueeze(1).float()
    return both.cpu().numpy()
