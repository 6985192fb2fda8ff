"""Networks the methods are built from: denoisers, feature extractors, autoencoders."""

from lightning_ad.networks.context_unet import ContextUNet
from lightning_ad.networks.features import FeaturePyramid
from lightning_ad.networks.unet import DiffusionUNet

__all__ = ["ContextUNet", "DiffusionUNet", "FeaturePyramid"]
