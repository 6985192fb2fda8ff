"""How fast a checkpoint scores in each way to run it: ratios within one run, on one machine."""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_modules.reading.dataset import as_tensor
from data_modules.reading.images import Pixels
from data_modules.reading.texts import read_json
from lightning_ad.deployment.formats import FORMATS, require_packages
from lightning_ad.deployment.parity import inputs_of
from lightning_ad.deployment.scorer import load_detector
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.speed.allocation import keep_freed_memory
from lightning_ad.speed.clock import finish_work

BATCHES = (1, 8)
MEGABYTE = 2**20

Score = Callable[[Pixels], object]
"""Scores pixels (B, H, W, 3)."""


@dataclass(frozen=True)
class Speed:
    """One way to score, measured."""

    way: str
    seconds: dict[int, float]
    """Median seconds for a batch, by its length."""
    memory: float | None
    """Megabytes that were added at the peak; None where the system does not say."""
    failure: str = ""
    """Why there are no numbers."""


def ways(checkpoint: Path, exported: Path, device: str, seconds: float) -> Iterator[Speed]:
    """Measure each of `WAYS` to score by a checkpoint, for so long each.

    Each has a process of its own: what one has freed would hide what the next one takes.
    """
    height, width = _loaded(checkpoint, "cpu").known_framing.seen
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), height, width, 3), np.uint8)
    for way in WAYS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            asked = fresh.submit(measured, way, checkpoint, exported, pixels, device, seconds)
            try:
                yield asked.result()
            except BrokenProcessPool:
                yield Speed(way, {}, None, "its process was killed, maybe for lack of memory")


def measured(
    way: str, checkpoint: Path, exported: Path, pixels: Pixels, device: str, seconds: float
) -> Speed:
    """Measure one way in this process, which keeps freed memory as `lightning predict` does."""
    keep_freed_memory()
    try:
        with _peak(device) as memory:
            score = WAYS[way](checkpoint, exported, device)
            found = {n: _median(score, pixels[:n], device, seconds) for n in BATCHES}
    except Exception as error:  # a compiler or a package that is not there
        return Speed(way, {}, None, str(error).strip().splitlines()[0])
    return Speed(way, found, memory[0])


def _loaded(checkpoint: Path, device: str) -> AnomalyDetector:
    return load_detector(checkpoint).to(device)


def _compiled(detector: AnomalyDetector) -> AnomalyDetector:
    for part in detector.children():
        if isinstance(part, nn.Module) and next(part.parameters(), None) is not None:
            part.compile()
    return detector


def _of_detector(detector: AnomalyDetector, precision: str) -> Score:
    detector.precision = precision

    def score(pixels: Pixels) -> object:
        image = torch.stack([as_tensor(each) for each in pixels]).to(detector.device)
        with torch.inference_mode(), detector.in_own_precision():
            return detector.detect(image, torch.zeros(len(image), device=image.device).long())

    return score


def _of_file(file: Path) -> Score:
    if not file.exists():
        raise ValueError(f"there is no {file}: 'lightning export' writes it")
    require_packages(FORMATS["onnx"].packages, "export")
    run, draws = FORMATS["onnx"].load(file), read_json(file.with_suffix(".json"))["noise_draws"]
    return lambda pixels: run(inputs_of(pixels, 0.0, draws))


WAYS: dict[str, Callable[[Path, Path, str], Score]] = {
    "float32": lambda file, _, device: _of_detector(_loaded(file, device), "32-true"),
    "bf16": lambda file, _, device: _of_detector(_loaded(file, device), "bf16-mixed"),
    "compiled": lambda file, _, device: _of_detector(_compiled(_loaded(file, device)), "32-true"),
    "onnx": lambda _, exported, __: _of_file(exported),
}
"""How a checkpoint, or the file that `lightning export` wrote of it, scores on a device.

In float32 as `lightning predict` does; with networks in bfloat16; in float32 with networks through
torch.compile; by the file, on the CPU.
"""


def _median(score: Score, pixels: Pixels, device: str, seconds: float) -> float:
    """Median seconds of a call, the first of which is not counted."""
    score(pixels)
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 3:
        started = time.perf_counter()
        score(pixels)
        finish_work(torch.device(device))
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@contextmanager
def _peak(device: str) -> Iterator[list[float | None]]:
    """Megabytes that what happens in here adds to memory at its peak, put into a list of one."""
    found: list[float | None] = [None]
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield found
        found[0] = (torch.cuda.max_memory_allocated() - before) / MEGABYTE
        return
    before_resident = _resident("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest so far
    except OSError:
        before_resident = None
    yield found
    highest = _resident("VmHWM")
    if before_resident is not None and highest is not None:
        found[0] = highest - before_resident


def _resident(name: str) -> float | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith(name)), None)
    return None if kilobytes is None else int(kilobytes) / 1024
