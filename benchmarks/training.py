"""DDAD's training step and scoring on this machine's accelerator: memory layout and precision.

    python -m benchmarks.training [--image_size 256] [--batch_size 32]

Prints milliseconds per image and the ratio to the plain version (float32, contiguous), all measured
in one run, interleaved, as medians.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.measure import medians, row, scoring
from lightning_ad.methods import DDAD
from lightning_ad.networks import DiffusionUNet, FeaturePyramid


def detector(size: int, device: torch.device, layout: torch.memory_format) -> DDAD:
    torch.manual_seed(0)
    features = FeaturePyramid("resnet50", weights="random")
    model = DDAD(DiffusionUNet(size), features)
    model.categories = ["part"]
    model.calibration["ratio"] = torch.tensor(1.0)
    model.enter_phase("denoise")
    return model.to(device).to(memory_format=layout)  # type: ignore[call-overload]


def training_step(
    model: DDAD, image: torch.Tensor, category: torch.Tensor, half: bool
) -> Callable[[], None]:
    optimizer = model.configure_optimizers()

    def step() -> None:
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            loss = model.loss(image, category)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    image = torch.randint(0, 256, shape, device=device) / 127.5 - 1
    category = torch.zeros(len(image), dtype=torch.long, device=device)
    layouts = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
    for name, make in (("training step", training_step), ("scoring", scoring)):
        variants = {
            f"{'bfloat16' if half else 'float32'}, {label}": make(
                detector(options.image_size, device, layout), image, category, half
            )
            for half in (False, True)
            for label, layout in layouts.items()
        }
        times = medians(variants, options.repeats)
        print(f"\nDDAD {name}, {options.image_size} px, batch {options.batch_size}, {device}")
        for label, taken in times.items():
            print(row(label, taken, times["float32, contiguous"], options.batch_size))


if __name__ == "__main__":
    main()
