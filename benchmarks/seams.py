"""Whether maps that were assembled from tiles show where tiles meet.

    python -m benchmarks.seams CHECKPOINT FOLDER

Takes the final.ckpt of a run in tiles and a folder of normal photographs: the mean value of their
maps within two pixels of the border of a tile, inside the photograph, over the mean elsewhere. 1 is
no seam.
"""

import argparse
from pathlib import Path

import numpy as np

from data_modules.reading.tiles import Tiling, scaled_size, starts
from data_modules.reading.walk import images_in
from lightning_ad import load_detector
from lightning_ad.detector.tiled import Tiled

NEAR = 2
"""Pixels from the border of a tile that count as its border."""


def at_borders(size: tuple[int, int], tile: tuple[int, int], tiling: Tiling) -> np.ndarray:
    """Where a map (H, W) lies close to the border of a tile, of any scale, and not to its own."""
    found = np.zeros(size, bool)
    for scale in tiling.scales:
        rows, columns = (
            _near(side, scaled, own, tiling.overlap)
            for side, scaled, own in zip(size, scaled_size(size, scale), tile, strict=True)
        )
        found |= rows[:, None] | columns
    return found


def _near(side: int, scaled: int, tile: int, overlap: float) -> np.ndarray:
    """Along a side of a photograph that is cut when it is as long as ``scaled``."""
    begins = starts(scaled, tile, overlap)
    edges = np.array([*begins[1:], *(begin + tile for begin in begins[:-1])]) * side / scaled
    places = np.arange(side) + 0.5
    return (np.abs(places[:, None] - edges) <= NEAR).any(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    detector = load_detector(options.checkpoint)
    if not isinstance(detector, Tiled) or detector.framing is None:
        raise SystemExit(f"{options.checkpoint} is not of a run in tiles")
    border, inner = [], []
    for file in images_in(options.folder):
        found = detector.predict(file).anomaly_map
        near = at_borders(found.shape, detector.framing.seen, detector.tiling)
        border.append(found[near])
        inner.append(found[~near])
    ratio = np.concatenate(border).mean() / np.concatenate(inner).mean()
    print(f"{detector.title}, {len(border)} photographs: {ratio:.4f}")


if __name__ == "__main__":
    main()
