"""A large photograph in tiles against as many ready-made tiles: peak memory, time per megapixel.

    python -m benchmarks.tiles [--method PatchCore] [--height 3000] [--width 4000] [--tile 256]

What assembling costs is the ratio of both times; peak memory is this process's, so that a run with
another height and width shows how it depends on the photograph. Weights and calibration are random,
which no time depends on. DDAD takes a single step of its ten, as memory does not depend on them.
"""

import argparse
import resource
import time

import torch
from torch import Tensor

from data_modules.reading.framing import Framing
from data_modules.reading.tiles import starts
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.scoring import checked_compare, checked_fuse
from lightning_ad.detector.tiled import Tiled
from lightning_ad.methods import DDAD, PatchCore
from lightning_ad.networks import DiffusionUNet, FeaturePyramid
from lightning_ad.speed.allocation import keep_freed_memory

MEMBERS = 5000
"""Patches in PatchCore's memory."""


def patchcore() -> AnomalyDetector:
    features = FeaturePyramid("tf_efficientnet_lite0", (1, 2), "random")
    method = PatchCore(features, components=128)
    channels = sum(layer.shape[1] for layer in features(torch.zeros(1, 3, 64, 64)))
    method.space["mean"] = torch.zeros(channels)
    method.space["projection"] = torch.randn(channels, 128)
    method.calibration["members_0"] = torch.randn(MEMBERS, 128)
    return method


def ddad_s(tile: int) -> AnomalyDetector:
    features = FeaturePyramid("tf_efficientnet_lite0", (1, 2), "random")
    denoiser = DiffusionUNet(tile, base=32, heads=2)
    method = DDAD(denoiser, features, level=250, steps=1)
    method.calibration["ratio"] = torch.ones(())
    return method


def megabytes() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def seconds_of_ready_tiles(detector: Tiled, tiles: Tensor) -> float:
    """Scoring tiles (N, 3, h, w) that nobody has to cut or to lay together."""
    category = torch.zeros(len(tiles), dtype=torch.long)
    start = time.process_time()
    for first in range(0, len(tiles), detector.tiles_at_once):
        some = slice(first, first + detector.tiles_at_once)
        _, parts = checked_compare(detector.method, tiles[some], category[some])
        checked_fuse(detector.method, parts, category[some])
    return time.process_time() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=["PatchCore", "DDAD"], default="PatchCore")
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--at_once", type=int, default=8)
    options = parser.parse_args()
    keep_freed_memory()  # as a Trainer of ours does
    torch.manual_seed(0)
    method = patchcore() if options.method == "PatchCore" else ddad_s(options.tile)
    detector = Tiled(method, tiles_at_once=options.at_once)
    detector.framing = Framing(options.tile, options.tile, (), fit="tile")
    detector.requires_grad_(False).eval()
    detector.prepare_inference()
    image = torch.rand(1, 3, options.height, options.width) * 2 - 1
    count = len(starts(options.height, options.tile, 0.25))
    count *= len(starts(options.width, options.tile, 0.25))
    few = image[..., : options.tile, : options.tile].expand(options.at_once, -1, -1, -1)
    seconds_of_ready_tiles(detector, few.contiguous())  # warms up
    loaded = megabytes()
    start = time.process_time()
    detector.detect(image, torch.zeros(1, dtype=torch.long))
    cut = time.process_time() - start
    peak = megabytes()
    batches = -(-count // options.at_once)
    ready = sum(seconds_of_ready_tiles(detector, few.contiguous()) for _ in range(batches))
    ready *= count / (batches * options.at_once)
    size = options.height * options.width / 1e6
    print(f"{options.method}, {options.width} x {options.height}, {count} tiles of {options.tile}")
    print(f"peak memory {peak:,.0f} MB ({loaded:,.0f} MB with one batch of tiles)")
    print(f"{cut / size:.2f} s per megapixel, {ready / size:.2f} s ready-made: {cut / ready:.3f}")


if __name__ == "__main__":
    main()
