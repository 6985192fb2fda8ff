"""How much more a DeCo-Diff corrects on the border of normal images than inside of them.

    python -m benchmarks.border runs/deco_mtd/final.ckpt --root data/MVTecAD --category bottle

Prints the mean correction |z' - z| of the outer two rings of latent pixels, of what lies inside,
and the ratio of both, over the normal test images of one category of MVTec AD. Nothing is wrong on
the border of a normal image: a ratio far above 1 tells of a network trained on other borders.
"""

import argparse

import torch
from torch import Tensor

from data_modules import MVTecAD
from lightning_ad import load_detector
from lightning_ad.methods import DeCoDiff

RINGS = 2


def ring_and_inner(correction: Tensor) -> tuple[float, float]:
    """Means of corrections (B, h, w) over the outer rings, and over the rest."""
    inside = torch.zeros(correction.shape[1:], dtype=torch.bool)
    inside[RINGS:-RINGS, RINGS:-RINGS] = True
    return float(correction[:, ~inside].mean()), float(correction[:, inside].mean())


@torch.inference_mode()
def corrections(detector: DeCoDiff, data: MVTecAD) -> Tensor:
    """Channel means (N, h, w) of what is corrected in the latents of normal test images."""
    found = []
    for batch in data.test_dataloader():
        image = batch["image"][batch["label"] == 0]
        if len(image):
            z = detector.latent(image)
            category = torch.zeros(len(image), dtype=torch.long)
            corrected = detector.correct(z, detector.class_of(image, category))
            found.append((corrected - z).abs().mean(1))
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--root", required=True)
    parser.add_argument("--category", required=True)
    options = parser.parse_args()
    detector = load_detector(options.checkpoint)
    if not isinstance(detector, DeCoDiff) or detector.framing is None:
        raise SystemExit(f"{options.checkpoint} is not of DeCo-Diff")
    size, resize = detector.framing.image_size, detector.framing.resize
    data = MVTecAD(options.root, options.category, size, cache=False, resize=resize)
    data.setup("test")
    ring, inner = ring_and_inner(corrections(detector, data))
    print(f"ring {ring:.4f}, inner {inner:.4f}, ratio {ring / inner:.3f}")


if __name__ == "__main__":
    main()
