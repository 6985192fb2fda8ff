"""DeCo-Diff by the protocol of its authors' code: to compare with published tables, not for use."""

import math

from torch.optim import AdamW

from lightning_ad.detector.optimizing import OptimizerFactory
from lightning_ad.methods.deco import DeCoDiff
from lightning_ad.networks.autoencoders import Autoencoder
from lightning_ad.networks.context_unet import ContextUNet


class DeCoDiffAsPublished(DeCoDiff):
    """DeCo-Diff whose numbers are comparable with those of arXiv 2503.19357.

    It differs from `DeCoDiff` in two habits of the authors' code. The network is told the true
    class of a test image, which a model for many classes would have to find out, and no image is
    ever shown without its class in training. The learning rate changes by epoch, is 0 in the whole
    first one and ends at a quarter of its peak. (The authors' PRO is `PublishedPRO`.)

    Not as there: training crops lie anywhere up to 16 px from the centre, where the authors' random
    translation, in effect, moves by 4 px to one side or not at all; with ``cache_latents``, an
    image has 8 such crops; a tenth of the training images is held out.
    """

    rate_changes = "epoch"
    warmup_epochs = 10
    horizon = 1.5
    """Epochs in which the cosine would end, relative to those that are trained."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: ContextUNet,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=1e-4, weight_decay=1e-4, fused=True),
        cache_latents: bool = False,
        cached_views: int = 8,
    ) -> None:
        super().__init__(
            autoencoder,
            denoiser,
            class_mode="given",
            class_dropout=0.0,
            optimizer=optimizer,
            cache_latents=cache_latents,
            cached_views=cached_views,
        )
        self.protocol = "as published (class: given)"

    def share_of_rate(self, epoch: int) -> float:
        """Share of the learning rate in an epoch: a rise from 0, then part of half a cosine."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        assert self.trainer.max_epochs is not None, "checked when the optimizer was made"
        cosine = max(1.0, self.horizon * self.trainer.max_epochs - self.warmup_epochs)
        return (1 + math.cos(math.pi * min(1.0, (epoch - self.warmup_epochs) / cosine))) / 2
