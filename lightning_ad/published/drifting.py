"""An extractor whose batch statistics drift while it is adapted, as in DDAD's and D3AD's code."""

from typing import Self

from torch import Tensor, nn

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.maths.adaptation import Pyramid


class DriftingExtractor(AnomalyDetector):
    """To be put before a method that adapts its ``features`` in a phase ``adapt``.

    The extractor takes on the statistics of adaptation's small batches, in which reconstructions
    and what they are compared with are normalized apart.
    """

    features: nn.Module

    def train(self, mode: bool = True) -> Self:
        """Let the extractor's statistics follow the batches of adaptation."""
        super().train(mode)
        self.features.train(mode and self.phase == "adapt")
        return self

    def adapted_features(self, both: Tensor) -> tuple[Pyramid, Pyramid]:
        """Features of the halves of a batch (2B, 3, H, W), each by statistics of its own."""
        reconstruction, target = both.chunk(2)
        return self.features(reconstruction), self.features(target)
