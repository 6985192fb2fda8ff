"""DDAD by the protocol of its authors' code: to compare with published tables, not for use."""

from dataclasses import replace
from typing import Any

from torch import Tensor

from lightning_ad.detector.detection import Detection
from lightning_ad.maths import maps
from lightning_ad.methods.ddad import DDAD
from lightning_ad.published.drifting import DriftingExtractor


class DDADAsPublished(DriftingExtractor, DDAD):
    """DDAD whose numbers are comparable with arXiv 2305.15956 (tables 1 to 3).

    It differs from `DDAD` in three habits of the authors' code. The ratio of both distances is that
    of their largest values in the batch under test, so that an image's score depends on the
    others. Score and metrics see the central seven eighths of an image (224 of 256 pixels)
    only. The extractor's batch statistics drift while it is adapted, and reconstructions and
    targets are normalized apart. Masks are binarised before resizing, as everywhere here; the
    authors count what is above 0 after a bilinear resize.
    """

    protocol = "as published"

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Also refuse what lets only a part of each image count: the authors' crop is one."""
        super().check_data(datamodule, stage)
        framing = getattr(datamodule, "framing", None)
        for name, given in (
            ("data.roi", getattr(datamodule, "region", None)),
            ("data.fit pad", framing is not None and framing.padded),
        ):
            if given:
                raise ValueError(
                    f"{self.title} counts the central seven eighths of each image, and {name} "
                    "another part: leave it out, or take DDAD"
                )

    def fingerprint_fields(self, datamodule: Any) -> dict[str, Any]:
        """The batch under test, on which the scores of its images depend."""
        batches = {
            "eval_batch_size": datamodule.eval_batch_size,
            "processes": self.trainer.world_size,
        }
        return super().fingerprint_fields(datamodule) | batches

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """D = D_f + v (max D_f / max D_p) D_p with maxima over the batch, blurred (eq. 11)."""
        ratio = maps.ratio_of_maxima(parts["feature"].max(), parts["pixel"].max())
        return maps.balanced(parts, ratio, self.pixel_weight, self.blur)

    def score(self, anomaly_map: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Maximum of the map's centre."""
        return super().score(central(anomaly_map), parts)

    def test_step(self, batch: Any, batch_idx: int) -> Detection:  # type: ignore[override]
        """Crop what metrics and panels see; the network saw the whole image."""
        whole = super().test_step(batch, batch_idx)
        assert whole.reconstruction is not None, "DDAD reconstructs"
        batch.update(image=central(batch["image"]), mask=central(batch["mask"]))
        return replace(
            whole,
            anomaly_map=central(whole.anomaly_map),
            reconstruction=central(whole.reconstruction),
            parts={name: central(part) for name, part in whole.parts.items()},
        )


def central(image: Tensor) -> Tensor:
    """The central seven eighths (B, C, 7 H / 8, 7 W / 8) of images (B, C, H, W)."""
    height, width = (round(side * 7 / 8) for side in image.shape[-2:])
    top, left = (image.shape[-2] - height) // 2, (image.shape[-1] - width) // 2
    return image[..., top : top + height, left : left + width]
