"""DRAEM: a network repairs pasted defects, a second one marks what was repaired.

Zavrtanik, Kristan, Skočaj, "DRÆM: A discriminatively trained reconstruction embedding for surface
anomaly detection", ICCV 2021, arXiv 2108.07610; a baseline, no diffusion model. Both networks are
trained together on normal images on which foreign textures were pasted, and so on the masks of
what was pasted; the second network's probability of "defect" is the map.

What differs from the authors' code: the textures' changes of colour are albumentations', and
without a folder of textures scikit-image's photographs serve.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam

from data_modules.reading.dataset import as_pixels, as_tensor
from data_modules.textured_defects import TexturedDefects
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.optimizing import OptimizerFactory, scheduled
from lightning_ad.maths.losses import focal_loss, ssim_loss
from lightning_ad.networks.sizes import require_multiple

SCORE_WINDOW = 21
"""Side in pixels of the square whose mean probability scores an image."""

DROPS = (0.8, 0.9)
"""Shares of the training after which the learning rate falls to a fifth."""


class DRAEM(AnomalyDetector):
    """Reconstruction and segmentation, trained on pasted textures.

    Args:
        reconstruction: network on images in [0, 1], see
            `lightning_ad.networks.draem.ReconstructiveNetwork`.
        segmentation: network on its output and the image, two logits a pixel, see
            `lightning_ad.networks.draem.SegmentationNetwork`.
        textures: folder with photographs to paste from, such as DTD; scikit-image's if not given.
        optimizer: of both networks.
        scoring: options of `AnomalyDetector`.
    """

    def __init__(
        self,
        reconstruction: nn.Module,
        segmentation: nn.Module,
        textures: str | None = None,
        optimizer: OptimizerFactory = lambda p: Adam(p, lr=1e-4),
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        self.reconstruction, self.segmentation = reconstruction, segmentation
        self.textures, self.optimizer = textures, optimizer
        self._defects: TexturedDefects | None = None

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check the images' size, and before training the folder of textures."""
        require_multiple(datamodule.image_size, self.segmentation, "segmentation")
        if stage == "fit":
            self._defects = TexturedDefects(self.textures)

    # Training.

    def phases(self) -> list[Phase]:
        """Both networks at once."""
        return [Phase("train")]

    def trained(self) -> list[nn.Module]:
        """Both networks."""
        return [self.reconstruction, self.segmentation]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimizer, whose rate falls to a fifth twice."""
        optimizer = self.optimizer([p for part in self.trained() for p in part.parameters()])

        def share(step: int) -> float:
            steps = self.trainer.estimated_stepping_batches
            return 0.2 ** sum(step >= drop * steps for drop in DROPS)

        return scheduled(optimizer, share)

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss on normal images (B, 3, H, W), of which half get a defect."""
        seeds = torch.randint(2**31, (len(image),)).tolist()
        drawn = [
            self._paste(pixels, index, seed)
            for pixels, index, seed in zip(image.cpu(), category.tolist(), seeds, strict=True)
        ]
        parts = (torch.stack(part).to(image.device) for part in zip(*drawn, strict=True))
        return self.paired_loss(*parts)

    def _paste(self, image: Tensor, category: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """A normal image (3, H, W) in [-1, 1], its copy with a defect, and the mask (1, H, W)."""
        if self._defects is None:
            self._defects = TexturedDefects(self.textures)
        pasted = self._defects(
            as_pixels(image), self.categories[category], np.random.default_rng(seed)
        )
        mask = torch.from_numpy(pasted.mask)[None]
        return as_tensor(pasted.normal), as_tensor(pasted.defective), mask

    def paired_loss(self, normal: Tensor, defective: Tensor, mask: Tensor) -> Tensor:
        """L2 + SSIM + focal loss (eq. 2 and 5) of images (B, 3, H, W) and their defective copies.

        ``mask`` (B, 1, H, W) is 1 where they differ.
        """
        repaired, defect = self.repair(defective)
        target = _from_0_to_1(normal)
        difference = F.mse_loss(repaired, target) + ssim_loss(repaired, target)
        return difference + focal_loss(torch.cat([1 - defect, defect], 1), mask)

    # Detection.

    def repair(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Repaired images (B, 3, H, W) in [0, 1] and probabilities of a defect (B, 1, H, W)."""
        seen = _from_0_to_1(image)
        repaired = self.reconstruction(seen)
        logits = self.segmentation(torch.cat([repaired, seen], 1))
        return repaired.float(), logits.float().softmax(1)[:, 1:]

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The repaired image and each pixel's probability of a defect."""
        repaired, defect = self.repair(image)
        return 2 * repaired.clamp(0, 1) - 1, {"defect": defect}

    def score(self, anomaly_map: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Largest mean over a square, which counts zeros beyond the border, or see ``top_share``.

        That share is of the squares, of which each pixel is the middle of one.
        """
        return super().score(F.avg_pool2d(anomaly_map, SCORE_WINDOW, 1, SCORE_WINDOW // 2), parts)


def _from_0_to_1(image: Tensor) -> Tensor:
    return (image + 1) / 2
