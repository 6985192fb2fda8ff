"""InvAD: features of an image, inverted to noise; what does not arrive there is anomalous.

Sakai et al., CVPR 2026, arXiv 2504.05662. A diffusion transformer learns the features of normal
images. At test time nothing is noised and nothing reconstructed: the sampler is walked backwards
from the clean features in three steps (see `lightning_ad.maths.inversion`). Features that the model
knows arrive at what looks like standard normal noise, the others at something longer.

What differs from the authors' code: both image scores are brought to one scale by held-out normal
images instead of by the test set; `experiments/published/` has the authors' protocol.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW

from lightning_ad.detector.averaging import AveragedDetector
from lightning_ad.detector.judged import JUDGED
from lightning_ad.detector.optimizing import OptimizerFactory, scheduled
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.maths import diffusion, maps
from lightning_ad.maths.inversion import ddim_invert, inversion_times, negative_log_likelihood

IMAGE_SCORES = ("spread", "surprise")
"""How far a map reaches from its smallest to its largest value; how unlikely the noise is."""

ROUNDING = 1e-6
"""Share of a value that float32 rounds away."""


class InvAD(AveragedDetector):
    """Inversion of features by a diffusion model of normal ones.

    Args:
        denoiser: network eps(xt, t) on maps of its ``side``, see
            `lightning_ad.networks.FeatureDiT`.
        features: frozen pyramid, see `lightning_ad.networks.FeaturePyramid`; its layers are resized
            to that side and concatenated.
        steps: network calls of the inversion.
        optimizer: of the denoiser.
        warmup: share of the training in which the learning rate rises from a fiftieth; after it,
            the rate falls along a cosine.
        scoring: options of `AnomalyDetector`, but ``top_share``.

    Raises:
        ValueError: for a ``top_share``: the image score is no value of the map.
    """

    kept_average = 0.999

    def __init__(
        self,
        denoiser: nn.Module,
        features: nn.Module,
        steps: int = 3,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=5e-5),
        warmup: float = 40 / 300,
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        if self.top_share:
            raise ValueError(
                "model.top_share has no meaning for InvAD, whose image score adds the range of all "
                "cells' lengths and the likelihood of all cells: leave it out"
            )
        require_at_least(2, steps=steps)
        require_at_least(0, warmup=warmup)
        self.denoiser, self.features = denoiser, features
        self.side: int = denoiser.side  # type: ignore[assignment]  # a module's attributes are any
        self.optimizer, self.warmup = optimizer, warmup
        schedule = diffusion.linear_schedule(1000, 1e-4, 0.02)
        self.register_buffer("alpha_bar", schedule.float(), persistent=False)
        self.alpha_bar: Tensor
        self.times = inversion_times(len(schedule), steps)

    # Training.

    def trained(self) -> list[nn.Module]:
        """The denoiser."""
        return [self.denoiser]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Warm-up, then a cosine to nothing."""

        def share(step: int) -> float:
            done = step / max(1, self.trainer.estimated_stepping_batches)
            if done < self.warmup:
                return 1 / 50 + (1 - 1 / 50) * done / self.warmup
            left = (done - self.warmup) / max(1e-9, 1 - self.warmup)
            return 0.5 * (1 + math.cos(math.pi * min(left, 1.0)))

        return scheduled(self.optimizer(self.denoiser.parameters()), share)

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss on images (B, 3, H, W) at random times."""
        features = self.described(image)
        t = torch.randint(len(self.alpha_bar), (len(image),), device=image.device)
        return self.denoise_loss(features, t, torch.randn_like(features))

    def denoise_loss(self, features: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the noise predicted in features (B, C, h, w) at times t (B,)."""
        xt = diffusion.add_noise(features, noise, self.alpha_bar, t)
        return F.mse_loss(self.denoiser(xt, t), noise)

    # Detection.

    @torch.no_grad()
    def described(self, image: Tensor) -> Tensor:
        """All layers' features (B, C, side, side) of images (B, 3, H, W)."""
        size = (self.side, self.side)
        layers = [maps.from_cells(layer.float(), size) for layer in self.features(image)]
        described = torch.cat(layers, 1)
        taken, made = getattr(self.denoiser, "channels", None), described.shape[1]
        if taken not in (None, made):
            raise ValueError(
                f"the layers of model.features have {made} channels together, model.denoiser takes "
                f"{taken}: set its option `channels` to {made}"
            )
        return described

    def compare(self, image: Tensor, category: Tensor) -> tuple[None, dict[str, Tensor]]:
        """How long the inverted features are; what makes both image scores, in whole cells.

        ``spread`` are the lengths as well, ``surprise`` what an image's would be if all its cells
        were as unlikely as each is.
        """
        network = self.in_precision(self.denoiser)
        z = ddim_invert(network, self.described(image), self.alpha_bar, self.times).float()
        length = z.norm(dim=1, keepdim=True)
        surprise = negative_log_likelihood(z) * length[0].numel()
        size = (image.shape[-2], image.shape[-1])
        return None, {
            "length": maps.from_cells(length, size),
            "spread": F.interpolate(length, size),
            "surprise": F.interpolate(surprise, size),
        }

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """The lengths."""
        return parts["length"]

    def score(self, anomaly_map: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Both image scores, each from 0 to 1 over held-out normal images, added up."""
        total = torch.zeros(anomaly_map.shape[0], device=anomaly_map.device)
        for name, value in zip(IMAGE_SCORES, self.image_scores(parts), strict=True):
            low, high = self.calibration[f"{name}_range"].to(total.device)
            smallest = (ROUNDING * high.abs()).clamp(min=1e-12)  # of a range that tells something
            total += (value - low) / (high - low).maximum(smallest)
        return total

    def image_scores(self, parts: dict[str, Tensor]) -> Tensor:
        """`IMAGE_SCORES` (2, B), of what is judged of the maps (B, 1, H, W) of `compare`.

        The mean, not the sum, of how unlikely cells are: a smaller region is no likelier.
        """
        smallest, largest = parts["spread"].flatten(1).aminmax(dim=1)
        surprise = parts["surprise"].flatten(1)
        judged = parts.get(JUDGED, torch.ones_like(parts["surprise"])).flatten(1)
        least = surprise.amin(1)  # apart: large values that hardly differ lose digits when summed
        more = ((surprise - least[:, None]) * judged).sum(1) / judged.sum(1)
        return torch.stack([largest - smallest, least + more])

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """The range of both image scores over all held-out normal images."""
        spread = extremes["spread_max"] - extremes["spread_min"]
        for name, values in zip(IMAGE_SCORES, (spread, extremes["surprise_mean"]), strict=True):
            self.calibration[f"{name}_range"] = torch.stack([values.min(), values.max()])
