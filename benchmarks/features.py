"""Methods in feature space: an image's score without the backbone, and their searches.

    python -m benchmarks.features

Points are random, 32 x 32 patches of 256 components as at 256 px; PaDiM keeps 128. PatchCore's
search is compared with torch.cdist over the same memory, its choice with the plain algorithm.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.measure import Taken, medians, row
from lightning_ad.detector.feature_space import FeatureSpaceDetector
from lightning_ad.maths.coreset import farthest_points, nearest
from lightning_ad.maths.patches import PatchSpace
from lightning_ad.methods import FeatureDiffusion, PaDiM, PatchCore
from lightning_ad.networks import PatchDenoiser
from lightning_ad.speed.allocation import keep_freed_memory

GRID, PLACES = 32, 1024
LAYERS = (512, 1024)


def points(count: int, dimensions: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, dimensions, generator=generator)


class Stored(nn.Module):
    """Stands for a ResNet-50: its layers 2 and 3, random, for any images."""

    def forward(self, image: Tensor) -> list[Tensor]:
        return [
            torch.ones(len(image), channels, GRID // scale, GRID // scale)
            for channels, scale in zip(LAYERS, (1, 2), strict=True)
        ]


def ready(detector: FeatureSpaceDetector) -> FeatureSpaceDetector:
    detector.match_categories(["part"], "validate")
    axes = torch.randn(sum(LAYERS), detector.components) / sum(LAYERS) ** 0.5
    detector.take_space(PatchSpace(torch.zeros(sum(LAYERS)), axes))
    return detector.eval()


def padim() -> FeatureSpaceDetector:
    detector = ready(PaDiM(Stored(), components=128))
    detector.calibration["mean_0"] = torch.zeros(PLACES, 128)
    detector.calibration["whiten_0"] = torch.eye(128).repeat(PLACES, 1, 1)
    return detector


def patchcore(members: int) -> FeatureSpaceDetector:
    detector = ready(PatchCore(Stored()))
    detector.calibration["members_0"] = points(members)
    return detector


def scoring(detector: FeatureSpaceDetector, images: int, half: bool = False) -> Callable:
    image, category = torch.zeros(images, 3, 256, 256), torch.zeros(images, dtype=torch.long)

    def score() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, half):
            return detector.detect(image, category).anomaly_map

    return score


def plain_choice(found: Tensor, count: int) -> Tensor:
    """The greedy choice written down: every choice reads all points."""
    distance = (found - found[0]).square().sum(1)
    choices = [0]
    for _ in range(count - 1):
        choices.append(int(distance.argmax()))
        to_new = (found - found[choices[-1]]).square().sum(1)
        torch.minimum(distance, to_new, out=distance)
    return torch.tensor(choices)


def timed(step: Callable[[], Tensor]) -> tuple[Taken, Tensor]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    return Taken(time.perf_counter() - wall, time.process_time() - cpu, None), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--members", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chosen_among", type=int, default=30_000)
    options = parser.parse_args()
    images, members = options.images, points(options.members)
    diffusion = ready(FeatureDiffusion(Stored(), PatchDenoiser()))
    query = points(images * PLACES) + 0.1
    taken = medians(
        {
            "cdist": lambda: torch.cdist(query, members).amin(1),
            "nearest": lambda: nearest(query, members)[0],
            "PaDiM": scoring(padim(), images),
            "PatchCore": scoring(patchcore(options.members), images),
            "FeatureDiffusion": scoring(diffusion, images),
            "FeatureDiffusion, bfloat16": scoring(diffusion, images, half=True),
        },
        options.rounds,
    )
    print(f"search among {options.members} members, 1,024 patches an image")
    for name in ("cdist", "nearest"):
        print(row(name, taken[name], taken["cdist"], images))
    worst = float((taken["nearest"].result - taken["cdist"].result).abs().max())
    print(f"  largest difference of a distance {worst:.1e}")
    print("score without backbone")
    for name in list(taken)[2:]:
        print(f"  {name:28}{1000 * taken[name].cpu / images:9.1f} ms/image of one core")
    count, found = options.chosen_among // 10, points(options.chosen_among, 128)
    plain, expected = timed(lambda: plain_choice(found, count))
    ours, choice = timed(lambda: farthest_points(found, count))
    print(f"choice of {count} among {options.chosen_among}, random, the hardest to choose from")
    print(f"  plain {plain.cpu:.1f} s, ours {ours.cpu:.1f} s: {plain.cpu / ours.cpu:.1f}x")
    print(f"  {float((expected == choice).float().mean()):.1%} of the choices are the same")


if __name__ == "__main__":
    torch.set_num_threads(1)
    keep_freed_memory()  # as commands do that score
    main()
