"""SimpleNet: a discriminator between normal features and the same features with noise.

Liu et al., "SimpleNet: A Simple Network for Image Anomaly Detection and Localization", CVPR 2023,
arXiv 2303.15140; a baseline, no diffusion model. Patches are embedded by a frozen network, moved by
one linear layer, and a small network learns to tell them from copies with Gaussian noise; how
little it takes a patch for a normal one is the map.

What differs from the authors' code: the networks at the end of training are kept instead of those
of the epoch that the test's labels prefer, and weights decay by AdamW in both of them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.optimizing import OptimizerFactory
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.maths import maps
from lightning_ad.maths.pooled_patches import pooled_patches

MARGIN = 0.5
"""Beyond it a score costs nothing (th+ and th- of the paper's eq. 6)."""


class SimpleNet(AnomalyDetector):
    """A feature adaptor and a discriminator, trained on noise in feature space.

    Args:
        features: frozen pyramid, see `lightning_ad.networks.FeaturePyramid`; the authors take
            layers 2 and 3 of `wide_resnet50_2`.
        dimensions: length of a patch's embedding.
        hidden: width of the discriminator.
        noise: deviation of the Gaussian noise on adapted features.
        blur: sigma in pixels of the Gaussian that smooths the map.
        optimizer: of the discriminator.
        adaptor_lr: learning rate of the adaptor, in the same optimizer.
        scoring: options of `AnomalyDetector`.
    """

    def __init__(
        self,
        features: nn.Module,
        dimensions: int = 1536,
        hidden: int = 1024,
        noise: float = 0.015,
        blur: float = 4.0,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=2e-4, weight_decay=1e-5),
        adaptor_lr: float = 1e-4,
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        require_at_least(1, dimensions=dimensions, hidden=hidden)
        require_at_least(0, noise=noise, blur=blur)
        self.features = features
        self.dimensions, self.noise, self.blur = dimensions, noise, blur
        self.optimizer, self.adaptor_lr = optimizer, adaptor_lr
        self.adaptor = nn.Linear(dimensions, dimensions)
        self.discriminator = nn.Sequential(
            nn.Linear(dimensions, hidden),
            nn.BatchNorm1d(hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1, bias=False),
        )
        for module in [self.adaptor, *self.discriminator]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)

    # Training.

    def phases(self) -> list[Phase]:
        """Adaptor and discriminator at once."""
        return [Phase("train")]

    def trained(self) -> list[nn.Module]:
        """Adaptor and discriminator."""
        return [self.adaptor, self.discriminator]

    def configure_optimizers(self) -> Optimizer:
        """One optimizer, with a learning rate for each part."""
        adaptor = {"params": self.adaptor.parameters(), "lr": self.adaptor_lr, "weight_decay": 0.01}
        return self.optimizer([{"params": self.discriminator.parameters()}, adaptor])

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss on images (B, 3, H, W), one draw of noise on each patch."""
        patches = self.patches(image).movedim(1, -1).flatten(0, -2)
        return self.discrimination_loss(patches, self.noise * torch.randn_like(patches))

    def discrimination_loss(self, patches: Tensor, noise: Tensor) -> Tensor:
        """Hinge loss (eq. 6) on embedded patches (N, D) and noise (N, D) on adapted ones."""
        adapted = self.adaptor(patches)
        normal, noisy = self.discriminator(torch.cat([adapted, adapted + noise])).chunk(2)
        return F.relu(MARGIN - normal).mean() + F.relu(MARGIN + noisy).mean()

    # Detection.

    @torch.no_grad()
    def patches(self, image: Tensor) -> Tensor:
        """Embedded patches (B, D, h, w) of images (B, 3, H, W)."""
        layers = [layer.float() for layer in self.features(image)]
        return pooled_patches(layers, self.dimensions)

    def patch_scores(self, patches: Tensor) -> Tensor:
        """How abnormal (B, 1, h, w) embedded patches (B, D, h, w) look."""
        scores = -self.discriminator(self.adaptor(patches.movedim(1, -1).flatten(0, -2)))
        return scores.float().view(patches.shape[0], 1, *patches.shape[-2:])

    def compare(self, image: Tensor, category: Tensor) -> tuple[None, dict[str, Tensor]]:
        """Scores of patches, resized bilinearly; there is no reconstruction."""
        scores = self.patch_scores(self.patches(image))
        size = (image.shape[-2], image.shape[-1])
        return None, {"patch": maps.from_cells(scores, size)}

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """The smoothed scores."""
        return maps.gaussian_blur(parts["patch"], self.blur)

    def score(self, anomaly_map: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """The largest patch's score, as far as resizing kept it, or see ``top_share``."""
        return super().score(parts["patch"], parts)
