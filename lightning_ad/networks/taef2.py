"""TAEF2: a tiny autoencoder with 32 latent channels (madebyollin/taesd, MIT licence).

Small enough for a CPU, with weights in two files of 3 MB, it serves where Stable Diffusion's
autoencoder is too slow or out of reach. The networks follow the layout of those files.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lightning_ad.networks.autoencoders import Autoencoder, fill


class Taef2Autoencoder(Autoencoder):
    """TAEF2: a small deterministic autoencoder with 32 latent channels.

    Its latents have a standard deviation of 0.76, by which they are divided here.

    Args:
        encoder: file ``taef2_encoder.safetensors``.
        decoder: file ``taef2_decoder.safetensors``.
    """

    channels, factor, deviation = 32, 8, 0.76
    licence = "MIT (madebyollin/taesd)"

    def __init__(self, encoder: str, decoder: str) -> None:
        super().__init__()
        files = {"encoder": Path(encoder), "decoder": Path(decoder)}
        self.files = {option: file.expanduser() for option, file in files.items()}
        self.encoder, self.decoder = _encoder(), _decoder()
        self.requires_grad_(False).eval()

    def load_pretrained(self) -> None:
        """Fill in the weights of both files."""
        for option, file in self.files.items():
            if not file.is_file():
                raise FileNotFoundError(
                    f"{option}: no file {file}; take taef2_{option}.safetensors from the"
                    " repository madebyollin/taesd and set the autoencoder's option"
                    f" `{option}` to its path"
                )
            try:
                state = load_file(file)
            except SafetensorError as error:
                raise ValueError(
                    f"{option}: {file} is no complete safetensors file: {error}"
                ) from error
            fill(self.get_submodule(option), state, f"{option}: {file}")

    @torch.no_grad()
    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, 32, h, w) of (B, 3, H, W), scaled to unit deviation, and zeros."""
        latent = self.encoder(image / 2 + 0.5) / self.deviation
        return latent, torch.zeros_like(latent)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], of scaled latents (B, 32, h, w)."""
        return self.decoder(latent * self.deviation) * 2 - 1


class _Block(nn.Module):
    """Three convolutions around a shortcut; ``pool`` first adds what groups of channels see."""

    def __init__(self, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3, padding=1),
        )
        self.pool = None
        if pool:
            self.pool = nn.Sequential(
                nn.Conv2d(64, 256, 1, bias=False),
                nn.GroupNorm(4, 256),
                nn.ReLU(inplace=True),
                nn.Conv2d(256, 64, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu_(self.conv(x) + x)


class _Clamp(nn.Module):
    """Keeps latents within the range the decoder was trained on, softly."""

    def forward(self, z: Tensor) -> Tensor:
        return 3 * torch.tanh(z / 3)


def _blocks(pool: bool = False) -> list[nn.Module]:
    return [_Block(pool) for _ in range(3)]


def _encoder() -> nn.Sequential:
    def halve() -> nn.Module:
        return nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        _Block(),
        *(halve(), *_blocks()),
        *(halve(), *_blocks()),
        *(halve(), *_blocks(pool=True)),
        nn.Conv2d(64, 32, 3, padding=1),
    )


def _decoder() -> nn.Sequential:
    def double() -> list[nn.Module]:
        return [nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]

    return nn.Sequential(
        _Clamp(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        *(*_blocks(pool=True), *double()),
        *(*_blocks(), *double()),
        *(*_blocks(), *double()),
        _Block(),
        nn.Conv2d(64, 3, 3, padding=1),
    )
