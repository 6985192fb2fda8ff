"""DeCo-Diff by the protocol of its authors' code: to compare with published tables, not for use."""

from torch.optim import AdamW

from lightning_ad.methods.deco import DeCoDiff, OptimizerFactory
from lightning_ad.networks.autoencoders import Autoencoder
from lightning_ad.networks.context_unet import ContextUNet


class DeCoDiffAsPublished(DeCoDiff):
    """DeCo-Diff whose numbers are comparable with those of arXiv 2503.19357.

    It differs from `DeCoDiff` in one habit of the authors' code: the network is told the true class
    of a test image, which a model for many classes would have to find out, and no image is ever
    shown without its class in training. (The authors' PRO is `PublishedPRO`.) Not as there: crops
    lie up to 16 px from the centre instead of 4, brightness and contrast do not vary, and the
    learning rate falls to 0 instead of stopping at two thirds of its cosine.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: ContextUNet,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=1e-4, weight_decay=1e-4, fused=True),
        cache_latents: bool = False,
    ) -> None:
        super().__init__(
            autoencoder,
            denoiser,
            class_mode="given",
            class_dropout=0.0,
            optimizer=optimizer,
            cache_latents=cache_latents,
        )
        self.protocol = "as published (class: given)"
