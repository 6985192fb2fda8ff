"""Texture DDM: conditioned reconstruction of textures that is also guided away from blur.

Amirian, Rakhmonov, Kim, Kim: a denoising diffusion model for anomalies in textures. Like DDAD
(arXiv 2305.15956) it noises an image part of the way and denoises it while pulling it towards
itself. Textures are made of fine detail, which such a reconstruction loses; so each step also
blurs the clean image that it predicts and steers away from what that blurred image would have led
to: self-attention guidance (Hong et al., ICCV 2023, arXiv 2210.00939) without its attention mask.

The paper's wording, that the difference between the prediction and its blurred version passes
through the model to give an additional error, leaves the order of these operations open. Here it
is the order of the guidance's own source, see `blur_guidance`.

Ours, because the paper gives no numbers: the weights, levels and steps of the sampler, the loss
and optimizer, a pretrained extractor that is not adapted further, a ratio of both distances from
held-out normal images, and noise seeded by each image's own pixels.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.optimizing import OptimizerFactory
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.maths import diffusion, maps
from lightning_ad.maths.adaptation import split
from lightning_ad.networks.attention_mask import WatchedAttention
from lightning_ad.networks.sizes import require_multiple

Blur = Callable[[Tensor], Tensor]
"""Blurs predicted clean images (B, C, H, W)."""


def blur_guidance(
    denoise: diffusion.Denoise,
    pull: diffusion.Correct,
    blur: Blur,
    scale: float,
    alpha_bar: Tensor,
) -> diffusion.Correct:
    """Correction ``pull`` followed by guidance away from the blurred prediction.

    With eps the pulled noise and x0 the clean image it implies: the blurred x0, noised again with
    eps, goes through the network once more; the result is
    eps_blurred + scale * (eps - eps_blurred) (arXiv 2210.00939, section 4).
    """

    def correct(eps: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        eps = pull(eps, xt, t)
        blurred = blur(diffusion.predict_x0(xt, eps, alpha_bar, t))
        eps_blurred = denoise(diffusion.add_noise(blurred, eps, alpha_bar, t), t).to(eps.dtype)
        return eps_blurred + scale * (eps - eps_blurred)

    return correct


class TextureDDM(AnomalyDetector):
    """Conditioned denoising with blur guidance.

    Args:
        denoiser: network eps(xt, t), see `lightning_ad.networks.DiffusionUNet`.
        features: pretrained pyramid, see `lightning_ad.networks.FeaturePyramid`.
        guidance: weight w of the pull towards the image; one number, or one per category by name.
        blur_scale: s, how far to go from the blurred prediction to the sharp one; 1 stops there
            (no guidance, and half the network calls), the guidance's source has 1.1 to 1.5.
        blur_sigma: sigma in pixels of that blur; None for the source's 3 at 128 px and 9 at 256,
            tripled whenever the image's shorter side doubles.
        attention_threshold: blur only where the denoiser's middle block attends more than this
            many times the mean, 1 in the guidance's source; None, as in the paper, everywhere.
        level: timestep that an image is noised to.
        steps: steps from there back to 0 (``level`` is a multiple).
        eta: randomness of the sampler, 0 for none.
        pixel_weight: v, weight of the pixel distance once both distances are on one scale.
        scored_layers: how many of the pyramid's deepest layers are compared.
        smoothing: sigma in pixels of the Gaussian that smooths the map.
        optimizer: of the denoiser.
        scoring: options of `AnomalyDetector`.
    """

    by_category = ("guidance",)

    def __init__(
        self,
        denoiser: nn.Module,
        features: nn.Module,
        guidance: float | dict[str, float] = 3.0,
        blur_scale: float = 1.2,
        blur_sigma: float | None = None,
        attention_threshold: float | None = None,
        level: int = 250,
        steps: int = 10,
        eta: float = 1.0,
        pixel_weight: float = 1.0,
        scored_layers: int = 2,
        smoothing: float = 4.0,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=3e-4),
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        self.denoiser, self.features = denoiser, features
        self.guidance, self.level, self.steps, self.eta = guidance, level, steps, eta
        self.blur_scale, self.blur_sigma = blur_scale, blur_sigma
        self.attention_threshold = attention_threshold
        self.pixel_weight, self.scored_layers = pixel_weight, scored_layers
        self.smoothing = smoothing
        self.optimizer = optimizer
        schedule = diffusion.linear_schedule(1000, 1e-4, 0.02)
        self.register_buffer("alpha_bar", schedule.float(), persistent=False)
        self.alpha_bar: Tensor
        diffusion.require_level("model.level", level, steps, self.alpha_bar)
        require_at_least(0, eta=eta, pixel_weight=pixel_weight, smoothing=smoothing)
        require_at_least(1, scored_layers=scored_layers)
        if attention_threshold is not None:
            WatchedAttention(denoiser)  # refuses a network that it cannot watch

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check the images' size."""
        require_multiple(datamodule.image_size, self.denoiser, "denoiser")

    # Training.

    def trained(self) -> list[nn.Module]:
        """The denoiser."""
        return [self.denoiser]

    def configure_optimizers(self) -> Optimizer:
        """The denoiser's optimizer."""
        return self.optimizer(self.denoiser.parameters())

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Mean squared error of the predicted noise."""
        t = torch.randint(len(self.alpha_bar), (len(image),), device=image.device)
        noise = torch.randn_like(image)
        xt = diffusion.add_noise(image, noise, self.alpha_bar, t)
        return F.mse_loss(self.denoiser(xt, t), noise)

    # Detection.

    def reconstruct(self, image: Tensor, guidance: Tensor, noise: diffusion.Noise) -> Tensor:
        """Noise images (B, 3, H, W) to the level and denoise them, pulled to themselves."""
        level = torch.full((image.shape[0],), self.level, device=image.device)
        pull = diffusion.guide_towards(image, self.alpha_bar, guidance)
        denoiser = self.in_precision(self.denoiser)
        with self._blur_where_attended(denoiser) as blur:
            away = blur_guidance(denoiser, pull, blur, self.blur_scale, self.alpha_bar)
            return diffusion.ddim_reverse(
                denoiser,
                diffusion.add_noise(image, noise(), self.alpha_bar, level),
                diffusion.evenly_spaced(level, self.steps),
                self.alpha_bar,
                self.eta,
                noise,
                pull if self.blur_scale == 1 else away,
            )

    @contextmanager
    def _blur_where_attended(self, denoiser: nn.Module) -> Iterator[Blur]:
        """The guidance's blur: everywhere, or where the denoiser's last call attended."""
        if self.attention_threshold is None:
            yield self.blur
            return
        threshold = self.attention_threshold
        with WatchedAttention(denoiser) as attention:
            yield lambda x0: torch.where(
                attention.mask(threshold, (x0.shape[-2], x0.shape[-1])),
                self.blur(x0),
                x0,
            )

    def blur(self, x0: Tensor) -> Tensor:
        """Blur predicted clean images (B, 3, H, W) for the guidance."""
        sigma = self.blur_sigma
        if sigma is None:
            sigma = 9 * (min(x0.shape[-2:]) / 256) ** math.log2(3)
        return maps.gaussian_blur(x0, sigma, kernel_size=31)

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel and feature distance to the guided reconstruction, as in DDAD (eq. 9 and 10)."""
        guidance = self.setting_of("guidance", category)
        reconstruction = self.reconstruct(image, guidance, self.noise_of(image))
        pyramid = self.features(torch.cat([reconstruction, image]))[-self.scored_layers :]
        size = (image.shape[-2], image.shape[-1])
        return reconstruction, {
            "pixel": maps.pixel_distance(reconstruction, image),
            "feature": maps.feature_distance(*split(pyramid), size, pool=3),
        }

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """Both distances on one scale, summed and smoothed."""
        return maps.balanced(parts, self.calibration["ratio"], self.pixel_weight, self.smoothing)

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """The scale that makes pixel distances as large as feature distances on normal images."""
        maxima = extremes["feature_max"], extremes["pixel_max"]
        self.calibration["ratio"] = maps.ratio_of_maxima(*maxima)
