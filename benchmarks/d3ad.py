"""D3AD's scoring on this machine: precision and memory layout, mixed levels, neighbour search.

    python -m benchmarks.d3ad [--image_size 256] [--batch_size 1] [--repeats 3] [--bank 8000]

The plain version is float32, contiguous and eager, with explicit attention and a pass of its own
through the extractor wherever features are needed. All versions have the same (random) weights and
the paper's sizes; they are measured in one run, interleaved, as medians. Prints milliseconds per
image and the ratio to the plain version, and how far the maps drift from its maps.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from benchmarks.measure import OwnProcess, as_published, medians, row, scoring
from lightning_ad.maths import maps
from lightning_ad.maths.nearest import distance_to_nearest
from lightning_ad.methods import D3AD
from lightning_ad.networks import DiffusionUNet, FeaturePyramid, KLAutoencoder

FEATURES = 128 * 16 * 16
"""Length of an image's fingerprint: layer 2 of a ResNet-34, averaged to 16 x 16."""


class PlainD3AD(D3AD):
    """Computes the same without sharing a pass."""

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        latent = self.latent(image)
        level = self.level(self.fingerprint(self.pyramid(image)), category)
        restored = self.reconstruct(latent, level, category)
        reconstruction = self.autoencoder.decode(restored)
        a, b = self.pyramid(reconstruction), self.pyramid(image)
        size = (image.shape[-2], image.shape[-1])
        return reconstruction, {
            "latent": maps.resize(maps.pixel_distance(restored, latent), size),
            "feature": maps.feature_distance(a, b, size),
        }


def build(method: type[D3AD], device: torch.device) -> D3AD:
    torch.manual_seed(0)
    denoiser = DiffusionUNet(32, 192, attention_at=(32, 16, 8, 4), heads=8, channels=4)
    detector = method(KLAutoencoder(), denoiser, FeaturePyramid("resnet34", weights="random"))
    detector.categories = ["part"]
    detector.calibration["bank"] = torch.rand(100, FEATURES).half()
    detector.calibration["bin_edges"] = torch.linspace(0, 3e4, 11, dtype=torch.float64).repeat(2, 1)
    for name, value in (("latent", 1.0), ("feature", 0.1)):  # about what the parts span here
        detector.calibration[f"{name}_min"] = torch.zeros(2)
        detector.calibration[f"{name}_max"] = torch.full((2,), value)
    if method is PlainD3AD:
        as_published(detector)
    else:
        detector.prepare_inference()
    return detector.requires_grad_(False).eval().to(device)


def examples(count: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Smooth images (count, 3, size, size) with a bright square each, and the squares' masks."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, size // 32, size // 32, generator=generator) - 0.5
    image = maps.resize(coarse, (size, size))
    mask = torch.zeros(count, 1, size, size, dtype=torch.long)
    mask[:, :, size // 4 : size // 2, size // 3 : size // 2] = 1
    return torch.where(mask == 1, 0.9, image).to(device), mask.to(device)


def plain_scoring(image: Tensor, category: Tensor) -> Callable[[], Tensor]:
    return scoring(build(PlainD3AD, image.device), image, category, half=False)


def compare_scoring(image: Tensor, mask: Tensor, repeats: int, ours: D3AD) -> None:
    category = torch.zeros(len(image), dtype=torch.long, device=image.device)
    steps = {
        "plain": OwnProcess(plain_scoring, image, category),
        "float32": scoring(ours, image, category, half=False),
        "bfloat16": scoring(ours, image, category, half=True),
    }
    times = medians(steps, repeats)
    print(f"\nscoring, {image.shape[-1]} px, batch {len(image)}, {image.device}")
    for name, taken in times.items():
        pair = torch.stack([taken.result.flatten(), times["plain"].result.flatten()])
        drift = (pair[0] - pair[1]).abs().max() / pair[1].abs().max()
        auroc = binary_auroc(taken.result.sigmoid().flatten(), mask.flatten().cpu())
        print(
            f"{row(name, taken, times['plain'], len(image))}   largest difference {drift:.1e}, "
            f"correlation {float(pair.corrcoef()[0, 1]):.5f}, pixel AUROC {100 * float(auroc):.2f}"
        )


def compare_levels(detector: D3AD, repeats: int, device: torch.device) -> None:
    latent = torch.randn(4, 4, 32, 32, device=device)
    category = torch.zeros(4, dtype=torch.long, device=device)
    levels = {"one level": [50, 50, 50, 50], "mixed levels": [20, 40, 60, 80]}

    def reconstruction(level: list[int]) -> Callable[[], Tensor]:
        return lambda: detector.reconstruct(latent, torch.tensor(level, device=device), category)

    steps = {name: reconstruction(level) for name, level in levels.items()}
    print("\nreconstruction of 4 latents")
    times = medians(steps, repeats)
    for name, taken in times.items():
        print(row(name, taken, times["one level"], 4))


def search(count: int, device: torch.device) -> None:
    bank = torch.rand(count, FEATURES, dtype=torch.float16, device=device)
    queries = torch.rand(30, FEATURES, device=device)
    taken = medians({"search": lambda: distance_to_nearest(queries, bank, 20)}, 1)["search"]
    print(f"\n20 nearest of {count} x {FEATURES} for a batch of 30: {taken.wall:.2f} s")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bank", type=int, default=8000)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ours = build(D3AD, device)
    image, mask = examples(options.batch_size, options.image_size, device)
    compare_scoring(image, mask, options.repeats, ours)
    compare_levels(ours, options.repeats, device)
    search(options.bank, device)


if __name__ == "__main__":
    main()
