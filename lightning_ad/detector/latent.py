"""What methods share that work on the latents of a frozen autoencoder."""

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.latent_cache import LatentCache
from lightning_ad.detector.per_category import require_at_least
from lightning_ad.detector.processes import data_module
from lightning_ad.networks.autoencoders import Autoencoder
from lightning_ad.networks.sizes import require_multiple
from lightning_ad.speed.folding import fold_upsampling


class LatentDetector(AnomalyDetector):
    """Base of methods that train a denoiser on latents, in a phase ``denoise``.

    Args:
        autoencoder: frozen, see `lightning_ad.networks.autoencoders`.
        denoiser: network on its latents.
        cache_latents: encode the training images once instead of in every epoch.
        cached_views: how many views are then kept of an image that is cropped at random or
            augmented.
        scoring: options of `AnomalyDetector`.

    Raises:
        ValueError: if autoencoder and denoiser differ in channels.
    """

    kept_once: tuple[str, ...] = ("autoencoder",)

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: nn.Module,
        cache_latents: bool,
        cached_views: int,
        **scoring: Any,
    ) -> None:
        super().__init__(**scoring)
        made, taken = autoencoder.channels, getattr(denoiser, "channels", autoencoder.channels)
        if taken != made:
            raise ValueError(
                f"model.autoencoder makes latents of {made} channels, model.denoiser takes "
                f"{taken}: set model.denoiser.init_args.channels to {made}"
            )
        self.autoencoder, self.denoiser = autoencoder, denoiser
        self.cache_latents, self.cached_views = cache_latents, cached_views
        require_at_least(1, cached_views=cached_views)
        self.latents: LatentCache | None = None

    @abstractmethod
    def latent_loss(self, z: Tensor, category: Tensor) -> Tensor:
        """Loss of the denoiser on latents (B, C, h, w) of the categories (B,)."""

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Check that latents cover whole images."""
        require_multiple(datamodule.image_size, self.autoencoder, "autoencoder")

    def on_fit_start(self) -> None:
        """Encode the data once, if asked to; other phases need the images themselves."""
        self.latents = None
        if self.cache_latents and self.phase == "denoise":
            data = data_module(self.trainer)
            self.latents = LatentCache(self.autoencoder, data, self.cached_views)

    def batch_loss(self, batch: Any) -> Tensor:
        """Loss on a batch, from the latents on disk where they are."""
        if self.latents is None:
            return super().batch_loss(batch)
        z = self.latents.draw(batch["path"], self.device)
        return self.latent_loss(z, self.category_of(batch))

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss of the denoiser on images (B, 3, H, W)."""
        z = self.autoencoder.encode(image, sample=True)
        return self.latent_loss(z.to(image.dtype), category)

    def prepare_inference(self) -> None:
        """Fold the autoencoder's upsampling, most of the work of a score."""
        super().prepare_inference()
        fold_upsampling(self.autoencoder)

    def latent(self, image: Tensor) -> Tensor:
        """Latents (B, C, h, w) that stand for images (B, 3, H, W): the posterior's mean."""
        return self.in_precision(self.autoencoder).encode(image).to(image.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 3, H, W) that latents (B, C, h, w) stand for."""
        return self.in_precision(self.autoencoder).decode(latent).to(latent.dtype)

    def lasting_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """Also name the autoencoder's architecture, for whose file a reader may have no folder."""
        architecture = getattr(self.autoencoder, "architecture", None)
        if architecture is not None:
            config["init_args"]["autoencoder"]["init_args"]["architecture"] = architecture
        return config
