"""What the benchmarks share: networks as published, and the time of versions of the same work."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

from lightning_ad.allocation import keep_freed_memory
from lightning_ad.networks.silu import InPlaceSiLU


class Seconds(NamedTuple):
    wall: float
    cpu: float
    """Of all threads; on a machine that other work shares, measure with OMP_WAIT_POLICY=passive."""


def as_published(network: nn.Module) -> None:
    """Compute attention in separate operations, and activations into new feature maps."""
    for module in network.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
        for name, part in module.named_children():
            if isinstance(part, InPlaceSiLU):
                setattr(module, name, nn.SiLU())


def medians(
    steps: Mapping[str, Callable[[], object]], rounds: int, ours: Collection[str] = ()
) -> dict[str, Seconds]:
    """Time each step once in every round, after one that warms up.

    Steps named by ``ours`` keep freed memory, as a detector that is prepared for inference does.
    """
    times: dict[str, list[Seconds]] = {name: [] for name in steps}
    kept = None
    for _ in range(rounds + 1):
        for name, step in steps.items():
            if kept != (name in ours):
                kept = name in ours
                keep_freed_memory(kept)
            times[name].append(_time(step))
    return {
        name: Seconds(*(statistics.median(column) for column in zip(*taken[1:], strict=True)))
        for name, taken in times.items()
    }


def _time(step: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def row(name: str, taken: Seconds, plain: Seconds, images: int) -> str:
    """Milliseconds an image, and how many times as fast as the plain version by either clock."""
    return (
        f"  {name:26}{1000 * taken.wall / images:9.1f} ms/image"
        f"{plain.wall / taken.wall:7.2f}x ({plain.cpu / taken.cpu:.2f}x in CPU time)"
    )
