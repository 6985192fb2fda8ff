"""Time and memory of the pixel metrics, against sorting everything and against a threshold loop.

Run as `python -m benchmarks.pixel_metrics`. Ratios come from one run on one machine; each figure
is the median of three, and memory is the process's peak above what it held before.
"""

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_ad.metrics import evaluate_maps

SIZE = 256
MANY, FEW = 1600, 100


def example(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise maps (N, 256, 256) in float32, higher in the rectangles of every other mask."""
    rng = np.random.default_rng(0)
    masks = np.zeros((images, SIZE, SIZE), bool)
    for mask in masks[::2]:
        for top, left, height, width in rng.integers(8, 60, (3, 4)) * [3, 3, 1, 1]:
            mask[top : top + height, left : left + width] = True
    maps = np.abs(rng.standard_normal(masks.shape, dtype=np.float32))
    maps += masks
    return maps, masks


def threshold_loop(maps: np.ndarray, masks: np.ndarray) -> float:
    """AUPRO as published codes do it: find and visit all regions at each of 200 thresholds."""
    overlaps, rates = [], []
    for threshold in np.linspace(maps.min(), maps.max(), 200):
        above = maps > threshold
        shares = [
            above[image][tuple(region.coords.T)].mean()
            for image, mask in enumerate(masks)
            for region in regionprops(label(mask, connectivity=2))
        ]
        overlaps.append(np.mean(shares))
        rates.append((above & ~masks).sum() / (~masks).sum())
    order = np.argsort(rates)
    rate, overlap = np.array(rates)[order], np.array(overlaps)[order]
    kept = rate < 0.3
    return float(np.trapezoid(overlap[kept], rate[kept]) / rate[kept].max())


def sort_everything(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """AUROC and AP by scikit-learn, from all pixels at once."""
    truth, scores = masks.ravel(), maps.ravel()
    return float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))


def resident_megabytes() -> float:
    """Memory that the process holds now (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure(work: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Return the median seconds and the peak megabytes above the start."""
    before, peak, done = resident_megabytes(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident_megabytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    done.set()
    watcher.join()
    return statistics.median(seconds), peak[0]


def main() -> None:
    """Measure and print."""
    maps, masks = example(MANY)
    few_maps, few_masks = maps[:FEW], masks[:FEW]
    evaluate_maps(few_maps, few_masks)  # warms up
    bounded = measure(lambda: evaluate_maps(few_maps, few_masks))
    rows = {
        f"evaluate_maps, {MANY} maps": measure(lambda: evaluate_maps(maps, masks)),
        f"evaluate_maps, {FEW} maps": bounded,
        f"evaluate_maps, {FEW} maps, exact": measure(
            lambda: evaluate_maps(few_maps, few_masks, exact=True)
        ),
        f"scikit-learn AUROC and AP, {FEW} maps": measure(
            lambda: sort_everything(few_maps, few_masks), 1
        ),
        f"200-threshold region loop, {FEW} maps": measure(
            lambda: threshold_loop(few_maps, few_masks), 1
        ),
    }
    table = Table("work", "seconds", "peak MB", f"times evaluate_maps of {FEW}")
    for name, (seconds, megabytes) in rows.items():
        table.add_row(name, f"{seconds:.2f}", f"{megabytes:.0f}", f"{seconds / bounded[0]:.1f}")
    Console().print(table)
    exact = evaluate_maps(few_maps, few_masks, exact=True)
    error = {
        name: abs(value - exact[name]) for name, value in evaluate_maps(few_maps, few_masks).items()
    }
    Console().print(f"largest difference between bounded and exact: {max(error.values()):.1e}")


if __name__ == "__main__":
    main()
