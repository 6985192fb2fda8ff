"""Latents of a data set on disk: frozen autoencoders encode an image once, not once an epoch.

The autoencoder is most of the work of training in latents. Where an image enters training without
random augmentation, its latent is computed once, written to a file that is mapped into memory, and
shared by all processes. Random translation stays possible: images are encoded whole, before a crop
from ``data.resize``, and latents are moved in steps of the autoencoder's factor.

A file's name holds a hash of the images, their sizes and modification times, and the autoencoder's
weights. It may be removed at any time; damaged, it is written again.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.reading.store import digest, file_stamp, stored_rows
from lightning_ad.networks.autoencoders import Autoencoder

FORMAT = 1  # raise it whenever the same images and weights would give another file


class LatentCache:
    """Latents of the training images and of the held-out images of a data module.

    The first process to come encodes what is not on disk, with a progress bar; others wait.

    Args:
        autoencoder: frozen, with its weights.
        datamodule: an `AnomalyDataModule`; the files lie in its ``cache_dir``.

    Raises:
        ValueError: if training images are augmented in a way that latents cannot follow.
        DataError: if the disk has too little room.
    """

    def __init__(self, autoencoder: Autoencoder, datamodule: Any) -> None:
        require_fixed_images(datamodule.framing, autoencoder.factor)
        self.side = datamodule.image_size // autoencoder.factor
        # Upwards: what may move in pixels moves in latents, too.
        self.translation = math.ceil(datamodule.framing.translation / autoencoder.factor)
        train = copy.copy(datamodule.memory_dataloader().dataset)
        train.transform = None  # whole: latents are cropped when they are drawn
        held_out = datamodule.val_dataloader().dataset
        weights = _weights_hash(autoencoder)
        self.files = [
            _LatentFile(autoencoder, weights, images, datamodule) for images in (train, held_out)
        ]  # training images first

    def draw(self, paths: Sequence[str], device: torch.device, sample: bool = True) -> Tensor:
        """Latents (B, C, h, w) of the images in ``paths``: samples of the posterior, or its means.

        Training images each at a random translation, where the data is augmented so.
        """
        file = next(file for file in self.files if paths[0] in file.rows)
        mean, *std = file.read(paths, device).unbind(1)
        z = mean + std[0] * torch.randn_like(mean) if sample and std else mean
        if file is self.files[0]:
            z = F.pad(z, [self.translation] * 4, "reflect")
        return _random_crop(z, self.side)


class _LatentFile:
    """Posteriors of a dataset's images, float32 (N, 2, C, h, w): mean and standard deviation.

    Only the mean, (N, 1, C, h, w), of a deterministic autoencoder.
    """

    def __init__(
        self, autoencoder: Autoencoder, weights: str, dataset: Any, datamodule: Any
    ) -> None:
        paths = [str(record.image) for record in dataset.records]
        self.rows = {path: row for row, path in enumerate(paths)}
        first = dataset[0]["image"]
        # The first image stands for whatever decides pixels besides files: resizing, cropping.
        stamps = [file_stamp(record.image) for record in dataset.records]
        key = digest(FORMAT, weights, tuple(first.shape), first.numpy().tobytes(), *stamps)
        self.path = datamodule.cache_dir / f"latents-{datamodule.data_set}-{key[:16]}.npy"
        self.latents = stored_rows(
            self.path,
            len(dataset),
            lambda: _encoded(autoencoder, dataset, datamodule),
            "latents",
            "set data.cache_dir to a folder on a larger disk, or model.cache_latents to false",
        )

    def read(self, paths: Sequence[str], device: torch.device) -> Tensor:
        """Posteriors (B, 1 or 2, C, h, w) of images."""
        return torch.from_numpy(self.latents[[self.rows[path] for path in paths]]).to(device)


def _encoded(
    autoencoder: Autoencoder, dataset: Any, datamodule: Any
) -> Iterator[NDArray[np.float32]]:
    """Posteriors of a dataset's images, batch by batch, with a progress bar."""
    loader: DataLoader = DataLoader(
        dataset, datamodule.eval_batch_size, num_workers=datamodule.num_workers
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


def _random_crop(z: Tensor, side: int) -> Tensor:
    """Square crops of latents (B, C, h, w), each image at a place of its own."""
    batch, _, height, width = z.shape
    if (height, width) == (side, side):
        return z
    inside = torch.arange(side, device=z.device)
    top = torch.randint(height - side + 1, (batch, 1), device=z.device) + inside
    left = torch.randint(width - side + 1, (batch, 1), device=z.device) + inside
    image = torch.arange(batch, device=z.device)[:, None, None]
    return z[image, :, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2).contiguous()


def require_fixed_images(framing: Any, factor: int) -> None:
    """Raise a ValueError if training images change in a way that latents cannot follow."""
    augment = [name for name in framing.augment if name != "translation"]
    if augment:
        raise ValueError(
            f"model.cache_latents encodes each image once, data.augment {augment} changes it in "
            "every epoch: remove one of the two"
        )
    for name in ("image_size", "resize"):
        if getattr(framing, name) % factor:
            raise ValueError(
                f"model.cache_latents needs data.{name} to be a multiple of {factor}, by which "
                f"model.autoencoder shrinks an image, not {getattr(framing, name)}"
            )


def _weights_hash(autoencoder: Autoencoder) -> str:
    state = autoencoder.state_dict()
    content = (tensor.cpu().contiguous().flatten() for tensor in state.values())
    return digest(
        type(autoencoder).__name__,
        autoencoder.scale,
        *state,
        *(tensor.view(torch.uint8).numpy().tobytes() for tensor in content),
    )
