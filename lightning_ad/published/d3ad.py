"""D3AD by the protocol of its authors' code: to compare with the published table, not for use."""

import math

import torch
from torch import Tensor

from lightning_ad.maths import diffusion
from lightning_ad.maths.nearest import distance_to_nearest
from lightning_ad.methods.d3ad import D3AD, PARTS
from lightning_ad.published.drifting import DriftingExtractor
from lightning_ad.published.looking import maps_of_test


class D3ADAsPublished(DriftingExtractor, D3AD):
    """D3AD whose numbers are comparable with those of its paper (VAND 2024).

    It differs from `D3AD` in four habits of the authors' code. The maps are scaled by the smallest
    and largest value over the whole test set, which is looked at once before it is scored, so that
    an image's score depends on all others. Training images count among their own neighbours, which
    makes them look more usual than they are and lifts the levels. Latents at test time are random
    samples of the posterior, the same at both looks. The extractor's batch statistics drift while
    it is tuned, and reconstructions and images are normalized apart.
    """

    protocol = "as published"

    def latent(self, image: Tensor) -> Tensor:
        """A random sample (B, C, h, w) of the latents that images (B, 3, H, W) may stand for."""
        mean, std = self.autoencoder.posterior(image)
        return (mean + std * diffusion.seeded_noise(image, mean.shape[1:])()).to(image.dtype)

    def training_distance(self, bank: Tensor) -> Tensor:
        """How unusual (N,) each image of a bank (N, D) is, itself the nearest of its neighbours."""
        return distance_to_nearest(bank, bank, self.neighbours)

    def on_test_start(self) -> None:
        """Look at the whole test set for the range of its maps; calibration's is given up."""
        super().on_test_start()
        low = torch.full((len(PARTS), len(self.categories)), math.inf, device=self.device)
        high = -low
        for category, parts in maps_of_test(self):
            for i, name in enumerate(PARTS):
                smallest, largest = parts[name].flatten(1).aminmax(dim=1)
                low[i].scatter_reduce_(0, category, smallest, "amin")
                high[i].scatter_reduce_(0, category, largest, "amax")
        reduce = self.trainer.strategy.reduce
        low, high = reduce(low, reduce_op="min"), reduce(high, reduce_op="max")
        for i, name in enumerate(PARTS):
            self.calibration[f"{name}_min"], self.calibration[f"{name}_max"] = low[i], high[i]
