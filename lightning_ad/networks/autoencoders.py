"""Frozen autoencoders between images and the latents that D3AD and DeCo-Diff work on.

Stable Diffusion's variational autoencoder (Rombach et al., arXiv 2112.10752), as in both papers,
and a tiny one distilled from it for speed. Autoencoders differ in channels, so a denoiser takes its
channel count from here. Weights are loaded by ``load_pretrained``, apart from construction, because
a checkpoint of ours may already hold them.
"""

from abc import ABC, abstractmethod
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.utils.torch_utils import randn_tensor
from torch import Generator, Tensor, nn

from lightning_ad.networks.hub import hub_or_cache
from lightning_ad.speed.silu import activate_in_place


class Autoencoder(nn.Module, ABC):
    """Maps images in [-1, 1] to scaled latents and back; never trains.

    Attributes:
        channels: channels of a latent.
        factor: side of an image over the side of its latent.
        scale: by which the network's own latents are multiplied, where that is a setting.
        licence: of the published weights.
    """

    channels: int
    factor: int
    scale: float = 1.0
    licence: str | None = None

    @abstractmethod
    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, c, h, w) of the scaled latents of (B, 3, H, W)."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], of scaled latents (B, c, h, w)."""

    @abstractmethod
    def load_pretrained(self) -> None:
        """Fill in the pretrained weights.

        Raises:
            FileNotFoundError: if they cannot be reached; it says which file belongs where.
            ValueError: if they belong to another architecture.
        """

    def encode(
        self, image: Tensor, sample: bool = False, generator: Generator | None = None
    ) -> Tensor:
        """Scaled latents (B, c, h, w) of images (B, 3, H, W): the mean, or a random sample.

        Raises:
            ValueError: if the image's sides are not divisible by ``factor``.
        """
        height, width = image.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"image size {height} x {width} is not divisible by the autoencoder's factor"
                f" {self.factor}: set image_size to a multiple of {self.factor}"
            )
        mean, std = self.posterior(image)
        if not sample:
            return mean
        return mean + std * randn_tensor(mean.shape, generator, mean.device, mean.dtype)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever the method around it does."""
        return super().train(False)


class KLAutoencoder(Autoencoder):
    """Stable Diffusion's autoencoder.

    Args:
        weights: a hub repository of Stable Diffusion's architecture, or a folder of any
            architecture with ``config.json`` and ``diffusion_pytorch_model.safetensors``.
        architecture: settings of ``diffusers.AutoencoderKL``; None takes the folder's, or Stable
            Diffusion's. A final checkpoint names them, so that it needs no folder.
    """

    licence = "MIT (stabilityai/sd-vae-ft-mse; other weights: see where they come from)"

    def __init__(
        self,
        weights: str = "stabilityai/sd-vae-ft-mse",
        architecture: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights = str(Path(weights).expanduser())
        self.architecture = architecture or _config(weights, AutoencoderKL, STABLE_DIFFUSION)
        self.network = AutoencoderKL.from_config(self.architecture)
        activate_in_place(self.network)
        self.channels = self.network.config.latent_channels
        self.factor = 2 ** (len(self.network.config.block_out_channels) - 1)
        self.scale = self.network.config.scaling_factor
        self.requires_grad_(False).eval()

    def load_pretrained(self) -> None:
        """Fill in the weights of the hub repository or folder."""
        _load(self.network, self.weights)

    @torch.no_grad()
    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, c, h, w) of the scaled latents of (B, 3, H, W)."""
        distribution = self.network.encode(image).latent_dist
        return distribution.mean * self.scale, distribution.std * self.scale

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], of scaled latents (B, c, h, w)."""
        return self.network.decode(latent / self.scale, return_dict=False)[0]


class TinyAutoencoder(Autoencoder):
    """TAESD: a small deterministic network for Stable Diffusion's latents, many times as fast.

    Args:
        weights: a hub repository of TAESD's architecture, or a folder with ``config.json`` and
            ``diffusion_pytorch_model.safetensors``.
        architecture: settings of ``diffusers.AutoencoderTiny``, as in `KLAutoencoder`.
    """

    licence = "MIT (madebyollin/taesd)"

    def __init__(
        self, weights: str = "madebyollin/taesd", architecture: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.weights = weights = str(Path(weights).expanduser())
        self.architecture = architecture or _config(weights, AutoencoderTiny, {})
        self.network = AutoencoderTiny.from_config(self.architecture)
        self.channels = self.network.config.latent_channels
        self.factor = 2 ** (len(self.network.config.encoder_block_out_channels) - 1)
        self.requires_grad_(False).eval()

    def load_pretrained(self) -> None:
        """Fill in the weights of the hub repository or folder."""
        _load(self.network, self.weights)

    @torch.no_grad()
    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, c, h, w) of (B, 3, H, W), already of about unit scale, and zeros."""
        latent = self.network.encode(image, return_dict=False)[0]
        return latent, torch.zeros_like(latent)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], of latents (B, c, h, w)."""
        return self.network.decode(latent, return_dict=False)[0]


STABLE_DIFFUSION: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
}


def _config(
    weights: str, network: type[AutoencoderKL | AutoencoderTiny], default: dict[str, Any]
) -> dict[str, Any]:
    """Settings from a local folder; a hub is not asked before its weights are needed."""
    file = Path(weights) / "config.json"
    if not file.is_file():
        return default
    config: Any = network.load_config(file.parent)
    if config.get("_class_name") != network.__name__:
        raise ValueError(f"{file} describes a {config.get('_class_name')}, not {network.__name__}")
    return dict(config)


def _load(network: AutoencoderKL | AutoencoderTiny, weights: str) -> None:
    try:
        with nullcontext() if Path(weights).is_dir() else hub_or_cache():
            loaded = type(network).from_pretrained(weights, low_cpu_mem_usage=False)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"the autoencoder {weights} could not be loaded ({error}). Where no hub is reachable,"
            " download its config.json and diffusion_pytorch_model.safetensors elsewhere, copy"
            " them to one folder here and set the autoencoder's option `weights` to that folder"
        ) from error
    fill(network, loaded.state_dict(), weights)
    ours, theirs = (part.config["scaling_factor"] for part in (network, loaded))
    if ours != theirs:
        raise ValueError(
            f"{weights} scales its latents by {theirs}, the configured autoencoder by {ours}: set"
            f" the autoencoder's `architecture` to the settings in the config.json of {weights}"
        )


def fill(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict, with an error that names its source if it does not fit."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = "\n".join(str(error).splitlines()[:2])[:500]
        raise ValueError(f"{source} holds another architecture: {first}") from error
