"""Images per second of the training loader with and without the decoded-image cache.

    python -m benchmarks.data_loading [--images 200] [--workers 2]

Writes PNGs of 1024x1024 pixels made from scikit-image's photographs, reads them at 256 pixels, and
prints one table. Also the private memory of a worker, and the time a warm start takes for 10,000
images: listing, checking that the cache fits the files, opening it.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import skimage.data

from data_modules import MVTecAD

SIZE = 256


def write_photographs(root: Path, count: int) -> None:
    """Different 1024-pixel PNGs with the texture of a real photograph, as costly to decode."""
    photographs = [getattr(skimage.data, name)() for name in ("brick", "grass", "gravel")]
    folder = root / "part" / "train" / "good"
    folder.mkdir(parents=True)
    for index in range(count):
        generator = np.random.default_rng(index)
        large = cv2.resize(photographs[index % 3], (1024, 1024), interpolation=cv2.INTER_CUBIC)
        coloured = large[..., None] * generator.uniform(0.6, 1, size=3)
        noisy = coloured + generator.normal(0, 2, size=coloured.shape)
        cv2.imwrite(str(folder / f"{index:04d}.png"), np.clip(noisy, 0, 255).astype(np.uint8))


def write_many(root: Path, count: int) -> None:
    """Many names of one small image: listing does not care what is in them."""
    folder = root / "part" / "train" / "good"
    folder.mkdir(parents=True)
    source = root / "source.png"
    cv2.imwrite(str(source), cv2.resize(skimage.data.gravel(), (32, 32)))
    for index in range(count):
        os.link(source, folder / f"{index:05d}.png")


def private_megabytes(process: int) -> float:
    """Memory of a process that it shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def measure(root: Path, cache_dir: Path, workers: int, cache: bool) -> tuple[float, float]:
    """Median images per second over three epochs, and the megabytes of the larger worker."""
    data = MVTecAD(
        root=str(root),
        image_size=SIZE,
        batch_size=16,
        num_workers=workers,
        cache=cache,
        cache_dir=str(cache_dir),
        augment=["horizontal_flip"],
    )
    data.setup("validate")
    loader = data.train_dataloader()
    rates = []
    for _ in range(4):
        start = time.perf_counter()
        images = sum(len(batch["path"]) for batch in loader)
        rates.append(images / (time.perf_counter() - start))
    processes = [worker.pid for worker in getattr(loader._iterator, "_workers", [])]
    memory = max(map(private_megabytes, processes), default=private_megabytes(os.getpid()))
    return statistics.median(rates[1:]), memory  # the first epoch starts the workers


def warm_start(root: Path, cache_dir: Path) -> float:
    """Seconds from nothing to a loader, with the cache on disk."""

    def start() -> float:
        begin = time.perf_counter()
        data = MVTecAD(
            root=str(root), image_size=32, num_workers=0, cache_dir=str(cache_dir), batch_size=16
        )
        data.setup("validate")
        data.train_dataloader()
        return time.perf_counter() - begin

    start()
    return statistics.median(start() for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="data-loading-"))
    try:
        write_photographs(folder / "large", options.images)
        write_many(folder / "many", 10_000)
        plain, plain_memory = measure(folder / "large", folder / "cache", options.workers, False)
        cached, cached_memory = measure(folder / "large", folder / "cache", options.workers, True)
        print(f"{options.images} PNGs of 1024 px read at {SIZE} px, {options.workers} workers")
        print(f"without cache  {plain:8.0f} images/s  {plain_memory:6.0f} MB private per worker")
        print(f"with cache     {cached:8.0f} images/s  {cached_memory:6.0f} MB private per worker")
        print(f"ratio          {cached / plain:8.1f}")
        seconds = warm_start(folder / "many", folder / "cache")
        print(f"warm start for 10,000 images: {seconds:.2f} s")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
