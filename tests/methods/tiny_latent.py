"""The smallest autoencoder and network a latent method runs on."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_ad.networks import ContextUNet
from lightning_ad.networks.autoencoders import Autoencoder


class TinyLatents(Autoencoder):
    """Averages of 2x2 pixels in four channels, and back; counts how often it encodes."""

    channels, factor = 4, 2

    def __init__(self, std: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.into, self.out = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)
        self.std = std
        self.encoded = 0
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        self.encoded += len(image)
        mean = self.into(F.avg_pool2d(image, self.factor))
        return mean, torch.full_like(mean, self.std)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        return F.interpolate(self.out(latent), scale_factor=self.factor)

    def load_pretrained(self) -> None:
        pass


def tiny_context_unet(categories: int = 2, null_class: bool = False) -> ContextUNet:
    torch.manual_seed(4)
    network = ContextUNet(categories, base=8, heads=2, dropout=0.0, null_class=null_class)
    return network.eval()
