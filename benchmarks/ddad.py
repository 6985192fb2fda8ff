"""DDAD's scoring against the same network run plainly, at 256 px on the CPU.

    python -m benchmarks.ddad [--base 64] [--images 2] [--rounds 3]

Plainly means as the published code does it: float32, contiguous, eager, attention in separate
operations, activations not in place, the sampler's equations one by one, one pass of the whole
backbone for the image and one for its reconstruction, patches averaged by unfolding. Both sides
have the same random weights and noise; what counts are ratios of medians within one run.
"""

import argparse
from collections.abc import Callable

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.measure import OwnProcess, as_published, medians, row, scoring
from lightning_ad.maths import diffusion, maps
from lightning_ad.methods import DDAD
from lightning_ad.networks import DiffusionUNet, FeaturePyramid

BACKBONE = "wide_resnet101_2"
GUIDANCE, LEVEL, STRIDE, RATIO = 3.0, 250, 25, 1.0


class Plain:
    """DDAD's scoring as the equations read, with the parts of a detector that it takes over."""

    def __init__(self, detector: DDAD) -> None:
        self.denoiser, self.pyramid = detector.denoiser, detector.features
        self.alpha_bar = detector.alpha_bar
        as_published(self.denoiser)
        self.backbone = timm.create_model(BACKBONE, pretrained=False).eval()
        pruned = self.pyramid.network.get_submodule("model")
        self.backbone.load_state_dict(pruned.state_dict(), strict=False)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        reconstruction = self.reconstruct(image)
        pixel = (reconstruction - image).abs().mean(1, keepdim=True)
        distance = self.feature_distance(reconstruction, image) + RATIO * pixel
        return maps.gaussian_blur(distance, 4.0, 33)

    def reconstruct(self, target: Tensor) -> Tensor:
        noise = diffusion.seeded_noise(target)
        ab = self.alpha_bar[LEVEL]
        xt = ab.sqrt() * target + (1 - ab).sqrt() * noise()
        for step in range(LEVEL - STRIDE, -1, -STRIDE):
            ab = self.alpha_bar[step]
            ab_next = self.alpha_bar[step - STRIDE] if step else torch.tensor(1.0)
            eps = self.denoiser(xt, torch.full((len(xt),), step))
            yt = ab.sqrt() * target + (1 - ab).sqrt() * eps
            eps_hat = eps - (1 - ab).sqrt() * GUIDANCE * (yt - xt)
            x0 = (xt - (1 - ab).sqrt() * eps_hat) / ab.sqrt()
            sigma = ((1 - ab / ab_next) * (1 - ab_next) / (1 - ab)).sqrt()
            direction = (1 - ab_next - sigma**2).sqrt() * eps_hat
            xt = ab_next.sqrt() * x0 + sigma * noise() + direction
        return xt

    def feature_distance(self, a: Tensor, b: Tensor) -> Tensor:
        total = torch.zeros(len(a), 1, *a.shape[2:])
        for layer_a, layer_b in zip(self.layers(a)[1:], self.layers(b)[1:], strict=True):
            distance = 1 - F.cosine_similarity(patch_mean(layer_a), patch_mean(layer_b))
            total += F.interpolate(
                distance[:, None], a.shape[2:], mode="bilinear", align_corners=True
            )
        return total

    def layers(self, image: Tensor) -> list[Tensor]:
        """Features of all stages of the backbone; the last one is computed and not used."""
        x = image * self.pyramid.scale + self.pyramid.shift
        stages = []
        for name, stage in self.backbone.named_children():
            if name == "global_pool":
                break
            x = stage(x)
            if name.startswith("layer"):
                stages.append(x)
        return stages[:3]


def patch_mean(layer: Tensor) -> Tensor:
    patches = F.unfold(layer, 3, padding=1)  # (B, C * 9, h * w)
    means = patches.view(len(layer), layer.shape[1], 9, -1).mean(2)
    return means.view_as(layer)


def build(base: int, heads: int, backbone: str = BACKBONE) -> DDAD:
    """A detector with random weights, the same each time, and the statistics that they give."""
    torch.manual_seed(0)
    denoiser = DiffusionUNet(256, base=base, heads=heads)
    features = FeaturePyramid(backbone, weights="random")
    norms = [module for module in features.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.normal_(norm.weight, 1, 0.1)
        norm.momentum = 1.0  # one batch sets the running statistics
    with torch.no_grad():
        features.train()(torch.rand(8, 3, 64, 64) * 2 - 1)
    detector = DDAD(denoiser, features, guidance=GUIDANCE, level=LEVEL, steps=LEVEL // STRIDE)
    detector.match_categories(["random"], "fit")
    detector.calibration["ratio"] = torch.tensor(RATIO)
    return detector.eval()


def plain_scoring(base: int, heads: int, image: Tensor) -> Callable[[], Tensor]:
    plain = Plain(build(base, heads))
    return lambda: plain(image)


def compare(base: int, heads: int, images: int, rounds: int) -> None:
    detector = build(base, heads)
    detector.prepare_inference()
    image = maps.gaussian_blur(torch.rand(images, 3, 256, 256), 3.0) * 2 - 1
    category = torch.zeros(images, dtype=torch.long)
    steps = {
        "plain": OwnProcess(plain_scoring, base, heads, image),
        "ours float32": scoring(detector, image, category, half=False),
        "ours bf16": scoring(detector, image, category, half=True),
    }
    times = medians(steps, rounds)
    print(f"DDAD base {base}, {images} images of 256 px, {torch.get_num_threads()} threads")
    for name, taken in times.items():
        both = torch.stack([taken.result.flatten(), times["plain"].result.flatten()]).double()
        difference = (both[0] - both[1]).abs().max().item()
        print(
            f"{row(name, taken, times['plain'], images)}   largest difference"
            f" {difference:.1e}, correlation {torch.corrcoef(both)[0, 1]:.6f}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=int, default=32, help="64 for DDAD, 32 for DDAD-S")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    compare(arguments.base, arguments.base // 16, arguments.images, arguments.rounds)
