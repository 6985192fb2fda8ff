"""Networks the methods are built from: denoisers, feature extractors, autoencoders.

Each is imported when it is first named, as some bring a large library with them.
"""

from typing import TYPE_CHECKING

from lightning_ad.speed.lazy import imported_when_named

if TYPE_CHECKING:
    from lightning_ad.networks.autoencoders import Autoencoder as Autoencoder
    from lightning_ad.networks.autoencoders import KLAutoencoder as KLAutoencoder
    from lightning_ad.networks.autoencoders import TinyAutoencoder as TinyAutoencoder
    from lightning_ad.networks.context_unet import ContextUNet as ContextUNet
    from lightning_ad.networks.draem import ReconstructiveNetwork as ReconstructiveNetwork
    from lightning_ad.networks.draem import SegmentationNetwork as SegmentationNetwork
    from lightning_ad.networks.feature_dit import FeatureDiT as FeatureDiT
    from lightning_ad.networks.features import FeaturePyramid as FeaturePyramid
    from lightning_ad.networks.patch_denoiser import PatchDenoiser as PatchDenoiser
    from lightning_ad.networks.taef2 import Taef2Autoencoder as Taef2Autoencoder
    from lightning_ad.networks.unet import DiffusionUNet as DiffusionUNet

HOMES = {
    "Autoencoder": "autoencoders",
    "ContextUNet": "context_unet",
    "DiffusionUNet": "unet",
    "FeatureDiT": "feature_dit",
    "FeaturePyramid": "features",
    "KLAutoencoder": "autoencoders",
    "PatchDenoiser": "patch_denoiser",
    "ReconstructiveNetwork": "draem",
    "SegmentationNetwork": "draem",
    "Taef2Autoencoder": "taef2",
    "TinyAutoencoder": "autoencoders",
}
"""The file of each network."""

__all__ = list(HOMES)

__getattr__ = imported_when_named(__name__, HOMES)
