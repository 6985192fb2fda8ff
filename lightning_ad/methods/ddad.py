"""DDAD: denoising diffusion anomaly detection with conditioned reconstruction.

Mousakhan, Brox, Tayyub, "Anomaly Detection with Conditioned Denoising Diffusion Models",
arXiv 2305.15956. A pixel-space diffusion model learns normal images. At test time an image is
noised part of the way and denoised while being pulled towards itself, which keeps its normal
content and loses its defects. Pixel and feature distances between the two make the anomaly map;
the feature extractor is first adapted to the normal images.

What differs from the authors' code: the ratio that balances both distances comes from held-out
normal images instead of the batch under test, the full frame is scored, the extractor keeps its
batch statistics while it is adapted, and noise is seeded by each image's own pixels.
`experiments/published/` has the authors' protocol.
"""

from copy import deepcopy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from lightning_ad.detector.detection import Phase
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.optimizing import OptimizerFactory
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.maths import diffusion, maps
from lightning_ad.maths.adaptation import Pyramid, adaptation_loss, split
from lightning_ad.networks.sizes import require_multiple


class DDAD(AnomalyDetector):
    """Conditioned denoising with an adapted feature extractor.

    Args:
        denoiser: network eps(xt, t), see `lightning_ad.networks.DiffusionUNet`.
        features: pretrained pyramid, see `lightning_ad.networks.FeaturePyramid`.
        guidance: weight w of the pull towards the image; one number, or one per category by name.
        level: timestep T' that an image is noised to.
        steps: network calls from there back to 0 (``level`` is a multiple).
        eta: randomness of the sampler, 1 as published, 0 for none.
        pixel_weight: v, weight of the pixel distance once both distances are on one scale.
        scored_layers: how many of the pyramid's deepest layers are compared.
        blur: sigma in pixels of the Gaussian that smooths the map.
        training_epochs: length of the denoiser's training, or by category; None leaves it to the
            Trainer.
        adaptation_epochs: length of the extractor's adaptation, or by category; 0 skips it.
        adaptation_batch_size: images per process and step of the adaptation, or by category; None
            takes the data's batch size.
        adaptation_guidance: w while adapting.
        preservation: lambda, how strongly adaptation holds on to the pretrained features.
        optimizer: of the denoiser; published: Adam with L2 0.05 beside a summed loss.
        adaptation_optimizer: of the extractor.
        scoring: options of `AnomalyDetector`.
    """

    by_category = ("guidance", "training_epochs", "adaptation_epochs", "adaptation_batch_size")

    def __init__(
        self,
        denoiser: nn.Module,
        features: nn.Module,
        guidance: float | dict[str, float] = 3.0,
        level: int = 250,
        steps: int = 10,
        eta: float = 1.0,
        pixel_weight: float = 1.0,
        scored_layers: int = 2,
        blur: float = 4.0,
        training_epochs: int | dict[str, int] | None = None,
        adaptation_epochs: int | dict[str, int] = 4,
        adaptation_batch_size: int | dict[str, int] | None = None,
        adaptation_guidance: float = 3.0,
        preservation: float = 0.1,
        optimizer: OptimizerFactory = lambda p: Adam(p, lr=3e-4, weight_decay=0.05),
        adaptation_optimizer: OptimizerFactory = lambda p: AdamW(p, lr=1e-4),
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        self.denoiser, self.features = denoiser, features
        self.guidance, self.level, self.steps, self.eta = guidance, level, steps, eta
        self.pixel_weight, self.scored_layers, self.blur = pixel_weight, scored_layers, blur
        self.training_epochs, self.adaptation_epochs = training_epochs, adaptation_epochs
        self.adaptation_batch_size = adaptation_batch_size
        self.adaptation_guidance, self.preservation = adaptation_guidance, preservation
        self.optimizer, self.adaptation_optimizer = optimizer, adaptation_optimizer
        schedule = diffusion.linear_schedule(1000, 1e-4, 0.02)
        self.register_buffer("alpha_bar", schedule.float(), persistent=False)
        self.alpha_bar: Tensor
        diffusion.require_level("model.level", level, steps, self.alpha_bar)
        require_at_least(0, eta=eta, pixel_weight=pixel_weight, blur=blur)
        require_at_least(1, scored_layers=scored_layers)
        self._frozen_features: list[nn.Module] = []  # a list keeps it out of the checkpoint

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check the images' size, and what would fail in the second phase: the size of batches."""
        if stage != "fit":
            return
        if any(phase.name == "adapt" for phase in self.phases()):
            self._check_pairs(datamodule)
        require_multiple(datamodule.image_size, self.denoiser, "denoiser")

    def _check_pairs(self, datamodule: Any) -> None:
        images, own = len(datamodule.training_records()), self.phases()[-1].batch_size
        batch_size = own or datamodule.batch_size
        key = "model.adaptation_batch_size" if own else "data.batch_size"
        if min(batch_size, images) < 2:
            raise ValueError(
                f"adaptation pairs images of a batch, but {key} is {batch_size} and "
                f"{images} images train: there must be 2 or more of both, or set "
                "model.adaptation_epochs to 0"
            )

    # Training.

    def phases(self) -> list[Phase]:
        """Train the denoiser, then adapt the extractor."""
        denoise = Phase("denoise", self.common_setting("training_epochs", least=1))
        epochs = self.common_setting("adaptation_epochs")
        adapt = Phase("adapt", epochs, self.common_setting("adaptation_batch_size", least=1))
        return [denoise, adapt] if epochs else [denoise]

    def trained(self) -> list[nn.Module]:
        """The denoiser, or the extractor."""
        return [self.features if self.phase == "adapt" else self.denoiser]

    def enter_phase(self, name: str) -> None:
        """Keep a copy of the extractor as it was before its adaptation."""
        super().enter_phase(name)
        self._frozen_features = []
        if name == "adapt":
            self._frozen_features = [deepcopy(self.features).eval().requires_grad_(False)]

    def train(self, mode: bool = True) -> Self:
        """Keep the extractor's batch statistics, also while it is adapted."""
        super().train(mode)
        self.features.eval()
        return self

    def configure_optimizers(self) -> Optimizer:
        """One optimizer per phase."""
        make = self.adaptation_optimizer if self.phase == "adapt" else self.optimizer
        return make([p for part in self.trained() for p in part.parameters()])

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss of the current phase."""
        if self.phase == "adapt":
            return self.adapt_loss(image)
        t = torch.randint(len(self.alpha_bar), (len(image),), device=image.device)
        return self.denoise_loss(image, t, torch.randn_like(image))

    def denoise_loss(self, image: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error of the predicted noise, summed over an image, averaged over the batch."""
        xt = diffusion.add_noise(image, noise, self.alpha_bar, t)
        return (self.denoiser(xt, t) - noise).square().sum((1, 2, 3)).mean()

    def adapt_loss(self, image: Tensor) -> Tensor:
        """Make reconstructions of one half of the batch, guided to the other, look like it."""
        if self.training and len(image) < 2:
            raise ValueError(
                "adaptation pairs images of a batch: model.adaptation_batch_size or "
                "data.batch_size must be 2 or more"
            )
        half = max(1, len(image) // 2)  # a lone image left over in validation pairs with itself
        target, start = image[:half], image[-half:]
        frozen = self._frozen_features[0].to(self.device)
        with torch.no_grad():
            guidance = torch.full((half,), self.adaptation_guidance, device=self.device)
            reconstruction = self.reconstruct(
                start, target, guidance, lambda: torch.randn_like(start)
            )
            both = torch.cat([reconstruction, target])
            frozen_reconstruction, frozen_target = split(frozen(both))
        reconstructed, targeted = self.adapted_features(both)
        return adaptation_loss(
            reconstructed, targeted, frozen_reconstruction, frozen_target, self.preservation
        )

    def adapted_features(self, both: Tensor) -> tuple[Pyramid, Pyramid]:
        """Features of reconstructions and targets, which come as one batch (2B, 3, H, W)."""
        return split(self.features(both))

    # Detection.

    def reconstruct(
        self, image: Tensor, target: Tensor, guidance: Tensor, noise: diffusion.Noise
    ) -> Tensor:
        """Noise ``image`` (B, 3, H, W) to the level and denoise it towards ``target``."""
        level = torch.full((image.shape[0],), self.level, device=image.device)
        return diffusion.ddim_reverse(
            self.in_precision(self.denoiser),
            diffusion.add_noise(image, noise(), self.alpha_bar, level),
            diffusion.evenly_spaced(level, self.steps),
            self.alpha_bar,
            self.eta,
            noise,
            diffusion.guide_towards(target, self.alpha_bar, guidance),
        )

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel distance (eq. 9) and feature distance (eq. 10) to the guided reconstruction."""
        guidance = self.setting_of("guidance", category)
        noise = self.noise_of(image)
        reconstruction = self.reconstruct(image, image, guidance, noise)
        pyramid = self.features(torch.cat([reconstruction, image]))[-self.scored_layers :]
        size = (image.shape[-2], image.shape[-1])
        return reconstruction, {
            "pixel": maps.pixel_distance(reconstruction, image),
            "feature": maps.feature_distance(*split(pyramid), size, pool=3),
        }

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """D = D_f + v ratio D_p, blurred (eq. 11)."""
        return maps.balanced(parts, self.calibration["ratio"], self.pixel_weight, self.blur)

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """The scale that makes pixel distances as large as feature distances on normal images."""
        maxima = extremes["feature_max"], extremes["pixel_max"]
        self.calibration["ratio"] = maps.ratio_of_maxima(*maxima)
