"""Networks the methods are built from: denoisers, feature extractors, autoencoders."""

from lightning_ad.networks.autoencoders import Autoencoder, KLAutoencoder, TinyAutoencoder
from lightning_ad.networks.context_unet import ContextUNet
from lightning_ad.networks.features import FeaturePyramid
from lightning_ad.networks.taef2 import Taef2Autoencoder
from lightning_ad.networks.unet import DiffusionUNet

__all__ = [
    "Autoencoder",
    "ContextUNet",
    "DiffusionUNet",
    "FeaturePyramid",
    "KLAutoencoder",
    "Taef2Autoencoder",
    "TinyAutoencoder",
]
