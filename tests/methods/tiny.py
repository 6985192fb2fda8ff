"""The smallest networks a pixel method runs on, and images for them."""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.networks import DiffusionUNet

SIZE = 16


class TinyPyramid(nn.Module):
    """Two layers of random features, with batch statistics as in a ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6))
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.BatchNorm2d(8))

    def forward(self, image: Tensor) -> list[Tensor]:
        first = F.silu(self.first(image))
        return [first, self.second(first)]


class Brightness(AnomalyDetector):
    """Takes how far a pixel is from grey for its anomaly."""

    def trained(self):
        return []

    def configure_optimizers(self):
        raise NotImplementedError

    def loss(self, image, category):
        raise NotImplementedError

    def compare(self, image, category):
        return image, {"pixel": image.abs().mean(1, keepdim=True)}

    def fuse(self, parts, category):
        return parts["pixel"]


def tiny_denoiser() -> DiffusionUNet:
    torch.manual_seed(0)
    denoiser = DiffusionUNet(SIZE, base=8, multipliers=(1, 2), attention_at=(8,), heads=2)
    return denoiser.eval()


def tiny_pyramid() -> TinyPyramid:
    torch.manual_seed(1)
    return TinyPyramid().eval()


def images(count: int) -> Tensor:
    """Images (count, 3, SIZE, SIZE) in [-1, 1]."""
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 2 - 1


def rates(detector: AnomalyDetector, steps: int) -> list[float]:
    """The learning rate in each step of a training of so many."""
    detector._trainer = SimpleNamespace(estimated_stepping_batches=steps)
    configured = detector.configure_optimizers()
    assert configured["lr_scheduler"]["interval"] == "step"
    found = []
    for _ in range(steps):
        found.append(configured["optimizer"].param_groups[0]["lr"])
        configured["optimizer"].step()
        configured["lr_scheduler"]["scheduler"].step()
    return found


def plain_map(
    detector: AnomalyDetector, image: Tensor, v: float, ratio: float, sigma: float
) -> tuple[Tensor, Tensor]:
    """A detector's map (B, H, W), and DDAD's equations 9 to 11 with the deepest layer only."""
    with torch.no_grad():
        found = detector.detect(image, torch.zeros(len(image), dtype=torch.long))
        f, g = (detector.features(x)[-1] for x in (image, found.reconstruction))
    f, g = (F.avg_pool2d(layer, 3, stride=1, padding=1) for layer in (f, g))
    cosine = (f * g).sum(1) / (f.norm(dim=1) * g.norm(dim=1))
    feature = F.interpolate(1 - cosine[:, None], SIZE, mode="bilinear", align_corners=True)[:, 0]
    pixel = (image - found.reconstruction).abs().mean(1)
    fused = (feature + v * ratio * pixel).numpy()
    plain = [gaussian_filter(one, sigma, mode="mirror", truncate=4) for one in fused]
    return found.anomaly_map[:, 0], torch.tensor(np.stack(plain))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_weights(module: nn.Module, before: dict[str, Tensor]) -> bool:
    """Whether no parameter or buffer differs from ``before``."""
    return all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
