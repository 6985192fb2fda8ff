"""How far scoring and training are from the floor: operations over the rate of a matrix product.

    python -m benchmarks.floors [--batch_size 16] [--repeats 10]

Networks have random weights and the papers' sizes, 256 px, in bfloat16 after the layout that
`prepare_inference` gives them. The floor of an image is its floating-point operations over the rate
of one large bfloat16 product on the same device. Methods in feature space keep their backbone in
float32; what it takes alone is shown, too.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import d3ad, ddad, deco, features
from benchmarks.measure import medians, scoring
from benchmarks.reproduce.utilisation import matrix_rate
from benchmarks.training import detector, training_step
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.feature_space import FeatureSpaceDetector
from lightning_ad.methods import D3AD, DeCoDiff, FeatureDiffusion
from lightning_ad.networks import FeaturePyramid, PatchDenoiser

SIDE = 256


def in_feature_space(method: FeatureSpaceDetector) -> FeatureSpaceDetector:
    """A detector of `benchmarks.features` with a ResNet-50 in place of stored features."""
    method.features = FeaturePyramid("resnet50", (2, 3), weights="random").eval()
    return method


def builders(device: torch.device, members: int) -> dict[str, Callable[[], AnomalyDetector]]:
    """Those that score fastest first."""
    return {
        "PaDiM, ResNet-50": lambda: in_feature_space(features.padim()),
        "FeatureDiffusion, ResNet-50": lambda: in_feature_space(
            features.ready(FeatureDiffusion(features.Stored(), PatchDenoiser()))
        ),
        "PatchCore, ResNet-50": lambda: in_feature_space(features.patchcore(members)),
        "DDAD-S, ResNet-50": lambda: ddad.build(32, 2, "resnet50"),
        "DDAD": lambda: ddad.build(64, 4),
        "D3AD": lambda: d3ad.build(D3AD, device),
        "DeCo-Diff S": lambda: deco.build(DeCoDiff, device),
    }


def operations(step: Callable[[], object]) -> float:
    """Floating-point operations of products and convolutions in a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def backbone(network: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    def features_alone() -> Tensor:
        with torch.inference_mode():
            return network(image)[-1]

    return features_alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--members", type=int, default=20_000, help="of PatchCore's memory")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate, count = matrix_rate("bf16-mixed"), options.batch_size
    image = torch.randint(0, 256, (count, 3, SIDE, SIDE), device=device) / 127.5 - 1
    category = torch.zeros(count, dtype=torch.long, device=device)
    print(f"{device}, batch {count}, one large product: {rate / 1e12:.1f} TFLOP/s in bfloat16")
    say = partial(report, rate=rate, images=count, repeats=options.repeats)
    for name, build in builders(device, options.members).items():
        method = build().to(device).eval()
        method.prepare_inference()
        say(name, scoring(method, image, category, half=True))
        if isinstance(method, FeatureSpaceDetector):
            say("  its backbone, float32", backbone(method.features, image))
    trained = detector(SIDE, device, torch.channels_last)
    say("DDAD, training step", training_step(trained, image, category, half=True))


def report(name: str, step: Callable[[], object], rate: float, images: int, repeats: int) -> None:
    """Print a row: operations and milliseconds of an image, and the floor's share of them."""
    work = operations(step) / images
    wall = medians({name: step}, repeats)[name].wall / images
    print(
        f"{name:28}{work / 1e9:9.1f} GFLOP{1000 * wall:9.2f} ms/image"
        f"{100 * work / rate / wall:6.0f} % of the rate",
        flush=True,
    )


if __name__ == "__main__":
    main()
