"""InvAD by the protocol of its authors' code: to compare with the published table, not for use."""

import math

import torch

from lightning_ad.methods.invad import IMAGE_SCORES, InvAD
from lightning_ad.published.looking import maps_of_test


class InvADAsPublished(InvAD):
    """InvAD whose numbers are comparable with those of its paper (arXiv 2504.05662).

    Both image scores are scaled by their smallest and largest value over the whole test set, which
    is looked at once before it is scored, so that an image's score depends on all others.
    """

    protocol = "as published"

    def on_test_start(self) -> None:
        """Look at the whole test set for the range of its scores; calibration's is given up."""
        super().on_test_start()
        low = torch.full((len(IMAGE_SCORES),), math.inf, device=self.device)
        high = -low
        for _, parts in maps_of_test(self):
            values = self.image_scores(parts)
            low, high = low.minimum(values.amin(1)), high.maximum(values.amax(1))
        reduce = self.trainer.strategy.reduce
        low, high = reduce(low, reduce_op="min"), reduce(high, reduce_op="max")
        for i, name in enumerate(IMAGE_SCORES):
            self.calibration[f"{name}_range"] = torch.stack([low[i], high[i]])
