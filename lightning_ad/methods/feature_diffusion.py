"""FeatureDiffusion: a small diffusion model of pretrained features, patch by patch.

Ours. A denoiser learns how the features of normal patches are distributed at each place of an
image, and a patch is as anomalous as the denoiser would move it. Pixels and autoencoder latents are
the wrong space for a small machine; on features, which know what to look at, it trains in minutes.

- Features: two layers of a frozen backbone, described and half whitened as in
  `lightning_ad.maths.patches`, computed once (see `lightning_ad.detector.patch_store`).
- Denoiser: `lightning_ad.networks.PatchDenoiser`, in the parametrisation of Karras et al.,
  "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022.
- Score: |D(x, sigma) - x| at sigma 1, without any noise added, as D3AD starts without (Tebbe,
  Tayyub, CVPR-W VAND 2024): one call, no seed. One draw of noise, or inversion in several calls as
  in InvAD (Sakai et al., CVPR 2026), located and told apart worse.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from data_modules.reading.geometry import height_and_width
from lightning_ad.detector.averaging import AveragedDetector
from lightning_ad.detector.feature_space import FeatureSpaceDetector
from lightning_ad.detector.optimizing import OptimizerFactory, scheduled, steps_in_all
from lightning_ad.detector.patch_store import PatchStore
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.detector.processes import data_module
from lightning_ad.maths.edm import denoise, training_target


class FeatureDiffusion(AveragedDetector, FeatureSpaceDetector):
    """How far one denoising step moves the features of each patch.

    Args:
        features: frozen pretrained pyramid, see `lightning_ad.networks.FeaturePyramid`.
        denoiser: network F(y, sigma, place, category), see `lightning_ad.networks.PatchDenoiser`.
        components: K, principal components kept.
        scored_level: sigma of the one call that scores. At 1 a patch counts by what is likely
            around it; at 8 by what is usual at its place, which localises better where parts lie
            alike and worse where they don't. Of several, calibration chooses for each category,
            see `lightning_ad.experiment.choose`.
        levels: smallest and largest sigma that training draws from, uniformly in the logarithm.
        patches_per_image: patches of each image of a batch.
        warmup: steps over which the learning rate rises; it falls to 0 over the second half.
        optimizer: of the denoiser.
        blur: sigma in pixels of the Gaussian that smooths the map.
        top_share: share of the map's largest values whose mean is an image's score; 1 % as in
            Dinomaly (Guo et al., CVPR 2025).
        scoring: further options of `AnomalyDetector`.
    """

    def __init__(
        self,
        features: nn.Module,
        denoiser: nn.Module,
        components: int = 256,
        scored_level: float | tuple[float, ...] = (1.0, 8.0),
        levels: tuple[float, float] = (0.3, 5.0),
        patches_per_image: int = 64,
        warmup: int = 100,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=2e-3, weight_decay=0.01),
        blur: float = 4.0,
        top_share: float = 0.01,
        **scoring: Any,
    ) -> None:
        super().__init__(features, components, 0.5, blur, top_share=top_share, **scoring)
        require_at_least(1, patches_per_image=patches_per_image)
        require_at_least(0, warmup=warmup)
        if not 0 < levels[0] <= levels[1]:
            raise ValueError(f"model.levels must rise from above 0, not {list(levels)}")
        self.denoiser: Any = denoiser
        scored = scored_level if isinstance(scored_level, tuple) else (scored_level,)
        if not scored or min(scored) <= 0:
            raise ValueError(f"model.scored_level must be above 0, not {scored_level}")
        self.choices = {"scored_level": scored} if len(scored) > 1 else {}
        self.scored_level = scored[0]
        self.levels, self.patches_per_image = levels, patches_per_image
        self.warmup, self.optimizer = warmup, optimizer
        if denoiser.components != components:
            raise ValueError(
                f"model.components is {components}, model.denoiser takes {denoiser.components}: "
                f"set its option `components` to {components}"
            )

    # Training.

    def trained(self) -> list[nn.Module]:
        """The denoiser, and with it the space that it is of, which has no parameters."""
        return [self.denoiser, self.space]

    def match_categories(self, categories: list[str], stage: str) -> None:
        """Check that the network knows as many categories."""
        super().match_categories(categories, stage)
        if stage == "fit" and len(self.categories) != self.denoiser.categories:
            raise ValueError(
                f"model.denoiser knows {self.denoiser.categories} categories, but there are "
                f"{len(self.categories)}, {self.categories}: set its option `categories` to "
                f"{len(self.categories)}"
            )

    def check_grid(self, height: int, width: int) -> None:
        """Check that the network has as many places."""
        super().check_grid(height, width)
        rows, columns = height_and_width(self.denoiser.grid)
        if (height, width) != (rows, columns):
            raise ValueError(
                f"images have {height} x {width} patches, model.denoiser {rows} x {columns} "
                "places: set its options `image_size` to data.image_size and `stride` to the "
                "pixels per patch of the first of model.features' layers (8 for layer 2)"
            )

    def on_fit_start(self) -> None:
        """Compute the features, where they are not on disk, and train on them."""
        data = data_module(self.trainer)
        data.stored = PatchStore(self, data, self.patches_per_image)

    def on_fit_end(self) -> None:
        """Give the data module its images back."""
        data_module(self.trainer).stored = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The learning rate rises, stays, and falls to 0 over the second half, step by step."""
        optimizer = self.optimizer(self.denoiser.parameters())
        return scheduled(optimizer, self.rate)

    def rate(self, step: int) -> float:
        """Share of the learning rate at a step; the number of steps may change on the way."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if step == 0:  # the Trainer, asked now for its steps, would open the images
            return rise
        return min(rise, max(0.0, 2 * (1 - step / steps_in_all(self.trainer))))

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient's norm at 1 unless the Trainer says otherwise."""
        limit = 1.0 if gradient_clip_val is None else gradient_clip_val
        self.clip_gradients(optimizer, limit, gradient_clip_algorithm or "norm")

    def batch_loss(self, batch: Any) -> Tensor:
        """Loss on stored patches, or on all patches of images."""
        if "patches" not in batch:
            return super().batch_loss(batch)
        patches = batch["patches"].to(self.dtype)
        return self.patch_loss(patches, batch["place"], self.category_of(batch))

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss on images (B, 3, H, W)."""
        patches = self.points(image).flatten(2).transpose(1, 2)
        return self.patch_loss(patches, self._places(patches), category)

    def patch_loss(self, patches: Tensor, place: Tensor, category: Tensor) -> Tensor:
        """Loss on patches (B, N, K), at a random noise level of each image."""
        low, high = map(math.log, self.levels)
        shape = (len(patches), 1, 1)
        sigma = (low + (high - low) * torch.rand(shape, device=patches.device)).exp()
        return self.denoise_loss(patches, place, category, sigma, torch.randn_like(patches))

    def denoise_loss(
        self, x: Tensor, place: Tensor, category: Tensor, sigma: Tensor, noise: Tensor
    ) -> Tensor:
        """Mean squared error of F on patches x (B, N, K) with noise of sigma (B, 1, 1)."""
        y = x + sigma * noise
        found = self.denoiser(y / (1 + sigma**2).sqrt(), sigma, place, category)
        return F.mse_loss(found.float(), training_target(x, y, sigma))

    # Detection.

    def deviation(self, points: Tensor, number: int) -> Tensor:
        """|D(x, sigma) - x| of each patch at the scored level."""
        x = points.flatten(2).transpose(1, 2)
        self.require_grid(points, math.prod(height_and_width(self.denoiser.grid)))
        network, place = self.in_precision(self.denoiser), self._places(x)
        category = torch.full((x.shape[0],), number, device=x.device)
        sigma = self.chosen("scored_level", category).view(-1, 1, 1)
        denoised = denoise(lambda y, level: network(y, level, place, category).float(), x, sigma)
        return (denoised - x).norm(dim=2).view(-1, *points.shape[2:])

    def _places(self, patches: Tensor) -> Tensor:
        return torch.arange(patches.shape[1], device=patches.device)
