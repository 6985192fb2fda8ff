"""What the benchmarks share: networks as published, and the time of versions of the same work."""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.speed.silu import InPlaceSiLU


class Taken(NamedTuple):
    """Seconds that a step took, and the tensor that it returned, if any."""

    wall: float
    cpu: float
    """Of all threads; on a machine that other work shares, measure with OMP_WAIT_POLICY=passive."""
    result: Any


def as_published(network: nn.Module) -> None:
    """Compute attention in separate operations, and activations into new feature maps."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
        for name, part in module.named_children():
            if isinstance(part, InPlaceSiLU):
                setattr(module, name, nn.SiLU())


def scoring(
    detector: AnomalyDetector, image: Tensor, category: Tensor, half: bool
) -> Callable[[], Tensor]:
    """A step that returns the maps of images (B, 3, H, W), in bfloat16 or in float32."""
    detector.eval()

    def score() -> Tensor:
        with torch.inference_mode(), torch.autocast(image.device.type, torch.bfloat16, half):
            return detector.detect(image, category).anomaly_map

    return score


class OwnProcess:
    """A step in a process of its own.

    For plain versions: a detector that is prepared for inference changes how its whole process
    gets memory.

    Args:
        build: function of a module that returns the step.
        arguments: of ``build``.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=True)
        self.process.start()

    def timed(self) -> Taken:
        self.connection.send("step")
        return self.connection.recv()


def _serve(connection: Any, build: Callable[..., Callable[[], Any]], arguments: Any) -> None:
    step = build(*arguments)
    with suppress(EOFError):  # until the asking process ends
        while connection.recv():
            connection.send(_timed(step))


def medians(steps: Mapping[str, Callable[[], Any] | OwnProcess], rounds: int) -> dict[str, Taken]:
    """Time each step once in every round, after one that warms up; results are the last ones."""
    times: dict[str, list[Taken]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            times[name].append(step.timed() if isinstance(step, OwnProcess) else _timed(step))
    return {
        name: Taken(
            statistics.median(one.wall for one in taken[1:]),
            statistics.median(one.cpu for one in taken[1:]),
            taken[-1].result,
        )
        for name, taken in times.items()
    }


def _timed(step: Callable[[], Any]) -> Taken:
    wall, cpu = time.perf_counter(), time.process_time()
    result = step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    taken = time.perf_counter() - wall, time.process_time() - cpu
    return Taken(*taken, result.cpu() if isinstance(result, Tensor) else None)


def row(name: str, taken: Taken, plain: Taken, images: int) -> str:
    """Milliseconds an image, and how many times as fast as the plain version by either clock."""
    return (
        f"  {name:26}{1000 * taken.wall / images:9.1f} ms/image"
        f"{plain.wall / taken.wall:7.2f}x ({plain.cpu / taken.cpu:.2f}x in CPU time)"
    )
