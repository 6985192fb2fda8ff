"""How fast a checkpoint scores in each way to run it: ratios within one run, on one machine."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data_modules.reading.dataset import as_tensor
from data_modules.reading.images import Pixels
from lightning_ad.deployment.formats import FORMATS, require_packages
from lightning_ad.deployment.graph import counted_draws
from lightning_ad.deployment.parity import inputs_of
from lightning_ad.deployment.scorer import load_detector
from lightning_ad.detector.detector import AnomalyDetector
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
    """Measure each way to score by a checkpoint, for so long each.

    The ways: ``float32``, as `lightning predict` scores; ``bf16``, with networks in bfloat16;
    ``compiled``, float32 with its networks through torch.compile; ``onnx``, the file that
    `lightning export` wrote, on the CPU.
    """
    makes = {
        "float32": lambda: _of_detector(_loaded(checkpoint, device), "32-true"),
        "bf16": lambda: _of_detector(_loaded(checkpoint, device), "bf16-mixed"),
        "compiled": lambda: _of_detector(_compiled(_loaded(checkpoint, device)), "32-true"),
        "onnx": lambda: _of_file(exported, _loaded(checkpoint, "cpu")),
    }
    height, width = _loaded(checkpoint, "cpu").known_framing.seen
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), height, width, 3), np.uint8)
    for way, make in makes.items():
        try:
            with _peak(device) as memory:
                score = make()
                found = {n: _median(score, pixels[:n], device, seconds) for n in BATCHES}
        except Exception as error:  # a compiler or a package that is not there
            yield Speed(way, {}, None, str(error).strip().splitlines()[0])
        else:
            yield Speed(way, found, memory[0])


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


def _of_file(file: Path, detector: AnomalyDetector) -> Score:
    if not file.exists():
        raise ValueError(f"there is no {file}: 'lightning export' writes it")
    require_packages(FORMATS["onnx"].packages, "export")
    pixels = np.zeros((1, *detector.known_framing.seen, 3), np.uint8)
    with counted_draws(detector) as draws:
        _of_detector(detector, "32-true")(pixels)
    run, number = FORMATS["onnx"].load(file), max(draws, default=0)
    return lambda pixels: run(inputs_of(pixels, 0.0, number))


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
