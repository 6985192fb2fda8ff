"""DeCo-Diff's scoring and training step on this machine, against the same networks run plainly.

    python -m benchmarks.deco [--batch_size 1] [--training_batch_size 4] [--repeats 3]
        [--run runs/deco_synthetic]

Plain scoring is float32, contiguous and eager, with explicit attention (to a single class token
too) and two decodes. A plain training step encodes its images, checkpoints the network's
activations, has explicit attention and an optimizer that loops over the parameters. All versions
have the same random weights and the paper's sizes (S, Stable Diffusion's autoencoder, 256 px); they
are measured in one run, interleaved, as medians. Random weights say nothing about detection: with
--run, a finished run is tested in both precisions and its image and pixel AUROC are compared.
"""

import argparse
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.optim import AdamW

from benchmarks.measure import OwnProcess, as_published, medians, row, scoring
from lightning_ad.cli import main as lightning
from lightning_ad.maths import maps
from lightning_ad.maths.deviation import latent_deviation, pixel_deviation
from lightning_ad.methods import DeCoDiff
from lightning_ad.networks import ContextUNet, KLAutoencoder


class PlainDeCoDiff(DeCoDiff):
    """Computes the same with a decode of its own for each latent."""

    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        z = self.autoencoder.encode(image)
        corrected = self.correct(z, category)
        reconstruction, decoded = self.autoencoder.decode(corrected), self.autoencoder.decode(z)
        return reconstruction, {
            "pixel": pixel_deviation(reconstruction, decoded),
            "latent": latent_deviation(corrected, z, self.autoencoder.factor),
        }


def build(method: type[DeCoDiff], device: torch.device) -> DeCoDiff:
    torch.manual_seed(0)
    network = ContextUNet(categories=15, size="S", dropout=0.0)
    with torch.no_grad():  # corrections as small as a trained network's, below the clips
        network.unet.conv_out.weight.mul_(0.1)
    detector = method(KLAutoencoder(), network, class_mode="given")
    detector.match_categories([str(i) for i in range(15)], "fit")
    if method is PlainDeCoDiff:
        detector.optimizer = lambda p: AdamW(p, lr=1e-4, weight_decay=1e-4, foreach=False)
        as_published(detector)
    return detector.to(device)


def plain_scoring(image: Tensor, category: Tensor) -> Callable[[], Tensor]:
    return scoring(build(PlainDeCoDiff, image.device), image, category, half=False)


def compare_scoring(image: Tensor, repeats: int) -> None:
    ours, category = build(DeCoDiff, image.device), torch.arange(len(image), device=image.device)
    ours.prepare_inference()
    steps = {
        "plain": OwnProcess(plain_scoring, image, category),
        "float32": scoring(ours, image, category, half=False),
        "bfloat16": scoring(ours, image, category, half=True),
    }
    times = medians(steps, repeats)
    print(f"\nscoring, size S, batch {len(image)}, {image.device}")
    for name, taken in times.items():
        pair = torch.stack([taken.result.flatten(), times["plain"].result.flatten()])
        print(
            f"{row(name, taken, times['plain'], len(image))}   largest difference "
            f"{float((pair[0] - pair[1]).abs().max()):.1e} of {float(pair[1].max()):.2f}, "
            f"correlation {float(pair.corrcoef()[0, 1]):.5f}"
        )


def compare_training(image: Tensor, repeats: int) -> None:
    ours, plain = build(DeCoDiff, image.device), build(PlainDeCoDiff, image.device)
    plain.denoiser.unet.enable_gradient_checkpointing()
    category = torch.arange(len(image), device=image.device)
    latent = ours.autoencoder.encode(image)

    def training(detector: DeCoDiff, cached: bool, half: bool) -> Callable[[], None]:
        detector.enter_phase("denoise")
        optimizer = detector.optimizer(detector.denoiser.parameters())

        def step() -> None:
            with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
                if cached:
                    loss = detector.latent_loss(latent, category)
                else:
                    loss = detector.loss(image, category)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return step

    steps = {
        "plain": training(plain, cached=False, half=False),
        "float32": training(ours, cached=False, half=False),
        "float32, cached latents": training(ours, cached=True, half=False),
        "bfloat16, cached latents": training(ours, cached=True, half=True),
    }
    times = medians(steps, repeats)
    print(f"training step, size S, batch {len(image)}, {image.device}")
    for name, taken in times.items():
        print(row(name, taken, times["plain"], len(image)))


def compare_precisions(run: Path) -> None:
    print(f"\n{run}, tested in both precisions")
    for precision in ("32-true", "bf16-mixed"):
        with redirect_stdout(StringIO()), TemporaryDirectory() as folder:
            arguments = [f"--ckpt_path={run}/final.ckpt", f"--run_dir={folder}"]
            lightning(["test", *arguments, f"--trainer.precision={precision}"])
            metrics = json.loads((Path(folder) / "metrics.json").read_text())
        image, pixel = (100 * metrics[f"test/mean/{name}_auroc"] for name in ("image", "pixel"))
        print(f"  {precision:12} image AUROC {image:.2f}, pixel AUROC {pixel:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--training_batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run", type=Path, help="folder of a finished DeCo-Diff run")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(1)
    side = options.image_size
    count = max(options.batch_size, options.training_batch_size)
    coarse = torch.rand(count, 3, side // 32, side // 32, generator=generator)
    image = maps.resize(2 * coarse - 1, (side, side)).to(device)
    # First, as training does not keep freed memory, and scoring lets this process do so.
    compare_training(image[: options.training_batch_size], options.repeats)
    compare_scoring(image[: options.batch_size], options.repeats)
    if options.run:
        compare_precisions(options.run)


if __name__ == "__main__":
    main()
