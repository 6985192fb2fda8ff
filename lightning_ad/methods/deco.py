"""DeCo-Diff: correcting deviations from normality in latents, one model for all categories.

Beizaee, Lodygensky, Desrosiers, Dolz, "Correcting Deviations from Normality: A Reformulated
Diffusion Model for Multi-Class Unsupervised Anomaly Detection", CVPR 2025, arXiv 2503.19357. In
training some patches of a normal latent deviate and the network learns the direction back (see
`lightning_ad.maths.deviation`). At test time the latent itself, without added noise, is corrected
in a few steps; what was changed, in pixels and in the latent alike, is the anomaly.

What differs from the authors' code: the class is predicted from the image, or not used, instead of
being given with the test image. `experiments/published/` has the authors' protocol.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW

from lightning_ad.detector.latent import LatentDetector
from lightning_ad.detector.memory import KeptRows, MemoryPass
from lightning_ad.detector.optimizing import OptimizerFactory, scheduled, steps_in_all
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY, members, require_at_least
from lightning_ad.maths import deviation, diffusion
from lightning_ad.maths.adaptation import halves
from lightning_ad.networks.autoencoders import Autoencoder
from lightning_ad.networks.context_unet import ContextUNet

ClassMode = Literal["given", "null", "predicted"]


class DeCoDiff(LatentDetector):
    """Latent deviation correction, conditioned on the class of an image.

    Args:
        autoencoder: frozen, see `lightning_ad.networks.autoencoders`.
        denoiser: network d(zt, t, class), see `lightning_ad.networks.ContextUNet`; as many
            channels as the autoencoder, as many categories as the data.
        features: pretrained pyramid that tells categories apart, for class mode ``predicted``.
        class_mode: where the class comes from when an image is scored. ``predicted``: the category
            whose training images are nearest in the features, which leaves the network as in the
            paper; ``null`` (or None, which an unquoted null is in YAML): none, for networks with a
            ``null_class``; ``given``: the data's, as published, which tells a multi-class model
            what it should find out.
        class_dropout: share of training images shown as the null class, where there is one.
        levels: T, timesteps of the squared-cosine schedule.
        steps: corrections at test time, at even distances (``levels`` is a multiple).
        max_masked: largest share of a latent that deviates in training.
        max_shuffled: largest share of the noise that is patches of other latents.
        reference: what the decoded correction is compared with: the latent as ``decoded``, which
            forgives what the autoencoder loses, or the ``image`` itself.
        optimizer: of the network.
        warmup: share of all training steps in which the learning rate rises (ours); then it
            follows a cosine down to 0.
        cache_latents: encode the training images once instead of in every epoch.
        cached_views: how many views are then kept of an image that ``data.resize`` or
            ``data.augment`` varies, those of the first epochs: 8 are 1 % of the paper's 800 epochs,
            256 KB an image of 256 px in Stable Diffusion's latents, and 1 MB in TAEF2's.
        scoring: options of `AnomalyDetector`.
    """

    kept_once = ("autoencoder", "features")
    rate_changes: Literal["step", "epoch"] = "step"
    """When the learning rate changes: at each step, or at each epoch."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: ContextUNet,
        features: nn.Module | None = None,
        class_mode: ClassMode | None = "predicted",
        class_dropout: float = 0.1,
        levels: int = 10,
        steps: int = 5,
        max_masked: float = 0.7,
        max_shuffled: float = 0.3,
        reference: Literal["decoded", "image"] = "decoded",
        optimizer: OptimizerFactory = lambda p: AdamW(p, lr=1e-4, weight_decay=1e-4, fused=True),
        warmup: float = 0.05,
        cache_latents: bool = False,
        cached_views: int = 8,
        **scoring: Any,
    ) -> None:
        super().__init__(autoencoder, denoiser, cache_latents, cached_views, **scoring)
        self.denoiser: ContextUNet
        self.features = features
        self.class_mode: ClassMode = class_mode or "null"
        self.class_dropout = class_dropout
        self.max_masked, self.max_shuffled = max_masked, max_shuffled
        self.reference, self.optimizer, self.warmup = reference, optimizer, warmup
        self.pairs = reference == "decoded"
        self.protocol = f"default (class: {self.class_mode})"
        self._check_parts()
        require_at_least(1, steps=steps)
        require_at_least(0, warmup=warmup, class_dropout=class_dropout)
        if levels % steps:
            raise ValueError(f"model.levels ({levels}) must be a multiple of model.steps ({steps})")
        self.timesteps = range(levels - levels // steps, -1, -(levels // steps))
        schedule = diffusion.squared_cosine_schedule(levels)
        self.register_buffer("alpha_bar", schedule.float(), persistent=False)
        self.alpha_bar: Tensor

    def _check_parts(self) -> None:
        if self.class_mode == "null" and not self.denoiser.null_class:
            raise ValueError(
                "model.class_mode is null, but model.denoiser has no null class: set its "
                "null_class to true and train it, or choose another class_mode"
            )
        if self.class_mode == "predicted" and self.features is None:
            raise ValueError(
                "model.class_mode is predicted, which needs model.features, a feature extractor "
                "that tells categories apart; class_mode null does without"
            )

    # Training.

    def match_categories(self, categories: list[str], stage: str) -> None:
        """Check that the network has one class per category."""
        super().match_categories(categories, stage)
        # A checkpoint's network fits its own categories, whatever is scored.
        if stage == "fit" and len(self.categories) != self.denoiser.categories:
            raise ValueError(
                f"model.denoiser has {self.denoiser.categories} classes, but there are "
                f"{len(self.categories)} categories, {self.categories}: set "
                f"model.denoiser.init_args.categories to {len(self.categories)}"
            )

    def trained(self) -> list[nn.Module]:
        """The network."""
        return [self.denoiser]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The learning rate rises and follows a cosine, step by step."""
        steps_in_all(self.trainer)  # says early what is missing
        optimizer = self.optimizer(self.denoiser.parameters())
        return scheduled(optimizer, self.share_of_rate, self.rate_changes)

    def share_of_rate(self, step: int) -> float:
        """Share of the learning rate at a step: a linear warm-up, then half a cosine down to 0.

        Asks for the length of training at each step, as a run with a deadline revises it.
        """
        total = steps_in_all(self.trainer)
        rise = round(self.warmup * total)
        if step < rise:
            return step / rise
        return (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise)))) / 2

    def latent_loss(self, z: Tensor, category: Tensor) -> Tensor:
        """Loss on latents (B, C, h, w) with random deviations; some images lose their class."""
        side = deviation.draw_patch_side(z.shape[2], z.shape[3])
        kept = 1 - self.max_masked * torch.rand(len(z), device=z.device)
        mask = deviation.patch_mask(kept, z.shape[2], z.shape[3], side)
        noise = deviation.mixed_noise(z, side, self.max_shuffled)
        t = torch.randint(len(self.alpha_bar), (len(z),), device=z.device)
        if self.denoiser.null_class:
            dropped = torch.rand(len(z), device=z.device) < self.class_dropout
            category = category.masked_fill(dropped, self.denoiser.null_category)
        return self.deviation_loss(z, t, noise, mask, category)

    def deviation_loss(
        self, z: Tensor, t: Tensor, noise: Tensor, mask: Tensor, category: Tensor
    ) -> Tensor:
        """Mean squared error of the predicted direction of deviation."""
        zt, d = deviation.deviate(z, noise, mask, self.alpha_bar, t)
        return F.mse_loss(self.denoiser(zt, t, category).float(), d.float())

    # Detection.

    def correct(self, z: Tensor, category: Tensor) -> Tensor:
        """Take the deviation out of latents z (B, C, h, w) of the classes (B,)."""
        denoiser = self.in_precision(self.denoiser)
        return deviation.correct_deviation(
            lambda zt, t: denoiser(zt, t, category), z, self.timesteps, self.alpha_bar
        )

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Pixel and latent deviation between images and what their corrected latents decode to."""
        z = self.latent(image)
        corrected = self.correct(z, self.class_of(image, category))
        if self.reference == "image":
            reconstruction, reference = self.decode(corrected), image
        else:
            reconstruction, reference = halves(self.decode(torch.cat([corrected, z])))
        return reconstruction, {
            "pixel": deviation.pixel_deviation(reconstruction, reference),
            "latent": deviation.latent_deviation(corrected, z, self.autoencoder.factor),
        }

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """Geometric mean: anomalous is what deviates in both."""
        return (parts["pixel"] * parts["latent"]).sqrt()

    # Classes.

    def class_of(self, image: Tensor, category: Tensor) -> Tensor:
        """The class (B,) that the network is told, see ``class_mode``."""
        if self.class_mode == "null":
            return torch.full_like(category, self.denoiser.null_category)
        if self.class_mode == "predicted":
            features = self.class_features(image)
            centroids = self.calibration["centroids"].to(features.device)
            # The shortcut by matrix products rounds differently in batches of another size.
            exact = "donot_use_mm_for_euclid_dist"
            return torch.cdist(features, centroids, compute_mode=exact).argmin(1)
        if UNKNOWN_CATEGORY in [number for number, _ in self.groups_of(category)]:
            raise ValueError(
                "model.class_mode is given, but images come without a category that the model "
                f"knows ({self.categories}): set data.category to the one of these that "
                "they show, or train with class_mode null or predicted"
            )
        return category

    def class_features(self, image: Tensor) -> Tensor:
        """The mean of each layer's features over an image, each layer at unit length (B, D)."""
        assert self.features is not None, "class mode predicted has features"
        layers = [layer.float().mean((2, 3)) for layer in self.features(image)]
        return torch.cat([F.normalize(layer) for layer in layers], 1)

    def memory_passes(self, device: torch.device) -> Iterator[MemoryPass]:
        """Where the class is predicted, look at the features of the training images."""
        if self.class_mode == "predicted":
            kept = KeptRows(self.class_features)
            yield kept
            self.build_memory(kept.rows, kept.category)

    def build_memory(self, features: Tensor, category: Tensor) -> None:
        """Keep the centre of each category's training images."""
        own = [features[group].mean(0) for group in members(category, len(self.categories))[:-1]]
        self.calibration["centroids"] = torch.stack(own)
