"""D3AD: latent diffusion that noises an image as much as it looks unusual.

Tebbe, Tayyub, "Dynamic Addition of Noise in a Diffusion Model for Anomaly Detection", CVPR
Workshops (VAND) 2024. A diffusion model learns the latents of normal images. At test time the
distance of an image to its nearest training images decides how far up the noise schedule it
starts (dynamic implicit conditioning). It starts there without any noise, only scaled, and is
denoised while being pulled towards itself. Latent and feature distances make the anomaly map; the
feature extractor is first tuned on reconstructions of normal images.

What differs from the authors' code: the maps are scaled by held-out normal images instead of the
test set, training images don't count among their own neighbours, latents at test time are the
posterior's mean instead of a sample, and the extractor keeps its batch statistics;
`experiments/published/` has the authors' protocol. In tuning, each image draws a level of its own,
there each batch. As there, the bank of training images is made with the tuned extractor.
"""

from collections.abc import Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from data_modules.reading.geometry import height_and_width, plain, written
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.latent import LatentDetector
from lightning_ad.detector.memory import KeptRows, MemoryPass
from lightning_ad.detector.optimizing import OptimizerFactory
from lightning_ad.detector.per_category import (
    UNKNOWN_CATEGORY,
    members,
    require_at_least,
)
from lightning_ad.maths import diffusion, maps
from lightning_ad.maths.adaptation import Pyramid, cosine_loss, split
from lightning_ad.maths.nearest import (
    bin_of,
    distance_to_nearest,
    equal_width_edges,
    leave_one_out_distance,
)
from lightning_ad.networks.autoencoders import Autoencoder

PARTS = ("latent", "feature")


class D3AD(LatentDetector):
    """Dynamic noising in the latent space of a frozen autoencoder.

    Args:
        autoencoder: frozen, see `lightning_ad.networks.autoencoders`.
        denoiser: network eps(zt, t) on its latents, see `lightning_ad.networks.DiffusionUNet`.
        features: pretrained pyramid, see `lightning_ad.networks.FeaturePyramid`.
        guidance: weight w of the pull towards the image; one number, or one per category by name.
        max_level: T_max, the timestep that the most unusual images start from; a multiple of
            ``steps``.
        steps: network calls from there back to 0; levels are rounded to multiples.
        neighbours: K, training images whose mean distance says how unusual an image is.
        bins: number of levels to choose from; the lowest one is never used, unless it is the only.
        latent_share: share of the latent distance in the map, the rest is the feature distance's.
        scored_layers: how many of the pyramid's deepest layers are compared; the shallowest of
            them also finds the neighbours.
        blur: sigma in pixels of the Gaussian that smooths the map.
        adaptation_epochs: length of the extractor's tuning, or by category; 0 skips it.
        adaptation_batch_size: images per process and step of the tuning, or by category; None takes
            the data's batch size.
        optimizer: of the denoiser.
        adaptation_optimizer: of the extractor.
        cache_latents: encode the training images once instead of in every epoch.
        cached_views: how many views are then kept of an image that ``data.resize`` or
            ``data.augment`` varies, those of the first epochs.
        scoring: options of `AnomalyDetector`.

    Raises:
        ValueError: if autoencoder and denoiser differ in channels.
    """

    by_category = ("guidance", "adaptation_epochs", "adaptation_batch_size")

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: nn.Module,
        features: nn.Module,
        guidance: float | dict[str, float] = 4.0,
        max_level: int = 80,
        steps: int = 10,
        neighbours: int = 20,
        bins: int = 10,
        latent_share: float = 0.85,
        scored_layers: int = 2,
        blur: float = 4.0,
        adaptation_epochs: int | dict[str, int] = 1,
        adaptation_batch_size: int | dict[str, int] | None = None,
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=1e-4, weight_decay=0.01),
        adaptation_optimizer: OptimizerFactory = lambda p: AdamW(p, lr=1e-4),
        cache_latents: bool = False,
        cached_views: int = 8,
        **scoring: Any,
    ) -> None:
        super().__init__(autoencoder, denoiser, cache_latents, cached_views, **scoring)
        self.features = features
        self.guidance, self.max_level, self.steps = guidance, max_level, steps
        self.neighbours, self.bins = neighbours, bins
        self.latent_share, self.scored_layers, self.blur = latent_share, scored_layers, blur
        self.adaptation_epochs = adaptation_epochs
        self.adaptation_batch_size = adaptation_batch_size
        self.optimizer, self.adaptation_optimizer = optimizer, adaptation_optimizer
        schedule = diffusion.linear_schedule(1000, 0.0015, 0.0195)
        self.register_buffer("alpha_bar", schedule.float(), persistent=False)
        self.alpha_bar: Tensor
        require_at_least(1, steps=steps, neighbours=neighbours, bins=bins)
        diffusion.require_level("model.max_level", max_level, steps, self.alpha_bar)
        require_at_least(1, scored_layers=scored_layers)
        require_at_least(0, latent_share=latent_share, blur=blur)

    # Training.

    def phases(self) -> list[Phase]:
        """Train the denoiser, then tune the extractor."""
        epochs = self.common_setting("adaptation_epochs")
        adapt = Phase("adapt", epochs, self.common_setting("adaptation_batch_size", least=1))
        return [Phase("denoise"), *([adapt] if epochs else [])]

    def trained(self) -> list[nn.Module]:
        """The denoiser, or the extractor."""
        return [self.features if self.phase == "adapt" else self.denoiser]

    def train(self, mode: bool = True) -> Self:
        """Keep the extractor's batch statistics while it is tuned: small batches would drift."""
        super().train(mode)
        self.features.eval()
        return self

    def configure_optimizers(self) -> Optimizer:
        """One optimizer per phase."""
        make = self.adaptation_optimizer if self.phase == "adapt" else self.optimizer
        return make([p for part in self.trained() for p in part.parameters()])

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check what would fail later: the size of images, and how many there are to calibrate."""
        super().check_data(datamodule, stage)
        sides = height_and_width(datamodule.image_size)
        height, width = (side // self.autoencoder.factor for side in sides)
        latent = plain((height, width))
        if getattr(self.denoiser, "image_size", latent) != latent:
            raise ValueError(
                f"latents of data.image_size {written(datamodule.image_size)} have {height} x "
                f"{width} pixels: set the image_size of model.denoiser to {written(latent)}"
            )
        if stage == "fit":
            names = [record.category for record in datamodule.training_records()]
            self._check_enough({name: names.count(name) for name in self.categories})

    def _check_enough(self, images: dict[str, int]) -> None:
        for category, count in images.items():
            if count <= self.neighbours:
                raise ValueError(
                    f"{count} training images of {category} are too few for {self.neighbours} "
                    f"neighbours of each: add images, or set model.neighbours below {count}"
                )

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss of the current phase on images (B, 3, H, W)."""
        if self.phase == "adapt":
            bins = torch.randint(1, self.bins + 1, (len(image),), device=image.device)
            return self.adapt_loss(image, category, self.level_of(bins))
        return super().loss(image, category)

    def latent_loss(self, z: Tensor, category: Tensor) -> Tensor:
        """Loss of the denoiser on latents (B, C, h, w), at random times."""
        t = torch.randint(len(self.alpha_bar), (len(z),), device=z.device)
        return self.denoise_loss(z, t, torch.randn_like(z))

    def denoise_loss(self, latent: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Mean squared error of the noise predicted in latents (B, C, h, w) at times t (B,)."""
        zt = diffusion.add_noise(latent, noise, self.alpha_bar, t)
        return F.mse_loss(self.denoiser(zt, t), noise)

    def adapt_loss(self, image: Tensor, category: Tensor, level: Tensor) -> Tensor:
        """Make reconstructions from the levels (B,) look like their images (B, 3, H, W)."""
        with torch.no_grad():
            latent = self.latent(image)
            restored = self.reconstruct(latent, level, category)
            reconstruction = self.decode(restored)
        return cosine_loss(*self.adapted_features(torch.cat([reconstruction, image])))

    def adapted_features(self, both: Tensor) -> tuple[Pyramid, Pyramid]:
        """Features of reconstructions and images, which come as one batch (2B, 3, H, W)."""
        return split(self.features(both))

    # Dynamic implicit conditioning.

    def memory_passes(self, device: torch.device) -> Iterator[MemoryPass]:
        """Keep what tells images apart, and compare them with each other on the device."""
        kept = KeptRows(lambda image: self.fingerprint(self.pyramid(image)))
        yield kept
        self.build_memory(kept.rows.to(device), kept.category.to(device))

    def build_memory(self, features: Tensor, category: Tensor) -> None:
        """Keep the bank, and edges of bins for each category and, last, for all of them."""
        groups = [features[group] for group in members(category, len(self.categories))[:-1]]
        self._check_enough(dict(zip(self.categories, map(len, groups), strict=True)))
        distances = [self.training_distance(group) for group in groups]
        distances.append(torch.cat(distances))
        self.calibration["bank"] = features
        self.calibration["bank_category"] = category
        self.calibration["bin_edges"] = torch.stack(
            [equal_width_edges(group, self.bins) for group in distances]
        )

    def training_distance(self, bank: Tensor) -> Tensor:
        """How unusual (N,) each image of a bank (N, D) is among the others."""
        return leave_one_out_distance(bank, self.neighbours)

    def fingerprint(self, pyramid: list[Tensor]) -> Tensor:
        """Features (B, D) in which neighbours are found: one layer, averaged to 16 x 16 patches.

        Half precision keeps the bins and halves a bank that dwarfs the networks.
        """
        largest = torch.finfo(torch.float16).max  # beyond it lies infinity, and no distance
        averaged = F.adaptive_avg_pool2d(pyramid[0], 16).flatten(1)
        return averaged.clamp(-largest, largest).half()

    def level(self, fingerprint: Tensor, category: Tensor) -> Tensor:
        """Timestep (B,) from which images with that fingerprint (B, D) start.

        Neighbours come from an image's own category, or from the whole bank where it is unknown.
        """
        distance = torch.empty(category.shape[0], device=category.device)
        for number, own in self.groups_of(category):
            bank = self.calibration["bank"] if self.settled is not None else self._bank_of(number)
            distance[own] = distance_to_nearest(fingerprint[own], bank, self.neighbours)
        bins = bin_of(distance, self.calibration.of("bin_edges", category))
        # The paper never starts from the first of several bins.
        return self.level_of(bins.clamp(min=min(2, self.bins)))

    def _bank_of(self, number: int) -> Tensor:
        bank = self.calibration["bank"]
        if number == UNKNOWN_CATEGORY or len(self.categories) == 1:
            return bank
        return bank[self.calibration["bank_category"] == number]

    def settle(self, number: int) -> None:
        """Keep only the bank of that category."""
        super().settle(number)
        self.calibration["bank"] = self._bank_of(number)

    def level_of(self, bins: Tensor) -> Tensor:
        """The share bins / `bins` of T_max, rounded to a multiple of the steps and never 0."""
        strides = (bins / self.bins * self.max_level / self.steps).round().clamp(min=1)
        return strides.long() * self.steps

    # Detection.

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """The scored layers, in full precision: rounding would move images to other levels."""
        with torch.autocast(image.device.type, enabled=False):
            return self.features(image)[-self.scored_layers :]

    def reconstruct(self, latent: Tensor, level: Tensor, category: Tensor) -> Tensor:
        """Scale latents (B, C, h, w) as noising to the levels (B,) would, and denoise them."""
        guidance = self.setting_of("guidance", category)
        return diffusion.ddim_reverse(
            self.in_precision(self.denoiser),
            diffusion.add_noise(latent, torch.zeros_like(latent), self.alpha_bar, level),
            diffusion.evenly_spaced(level, self.steps),
            self.alpha_bar,
            correct=diffusion.guide_towards(latent, self.alpha_bar, guidance),
        )

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Latent and feature distance to the reconstruction from each image's own level."""
        latent, pyramid = self.latent(image), self.pyramid(image)
        level = self.level(self.fingerprint(pyramid), category)
        restored = self.reconstruct(latent, level, category)
        reconstruction = self.decode(restored)
        size = (image.shape[-2], image.shape[-1])
        return reconstruction.clamp(-1, 1), {
            "latent": maps.resize(maps.pixel_distance(restored, latent), size),
            "feature": maps.feature_distance(self.pyramid(reconstruction), pyramid, size),
        }

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """Both distances, each scaled so that normal images span 0 to 1, in one blurred map."""
        latent, feature = (self._scaled(name, parts[name], category) for name in PARTS)
        mixed = self.latent_share * latent + (1 - self.latent_share) * feature
        return maps.gaussian_blur(mixed, self.blur)

    def _scaled(self, name: str, part: Tensor, category: Tensor) -> Tensor:
        low, high = (
            self.calibration.of(f"{name}_{end}", category).view(-1, 1, 1, 1)
            for end in ("min", "max")
        )
        return (part - low) / (high - low).clamp(min=1e-12)

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """The range of both distances on the images of each category and, last, of all."""
        groups = members(extremes["category"], len(self.categories))
        for name in PARTS:
            low, high = extremes[f"{name}_min"], extremes[f"{name}_max"]
            self.calibration[f"{name}_min"] = torch.stack([low[group].min() for group in groups])
            self.calibration[f"{name}_max"] = torch.stack([high[group].max() for group in groups])
