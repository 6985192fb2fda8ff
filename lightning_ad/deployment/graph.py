"""What is exported: a detector from 8-bit pixels to map, score and verdict, as one graph.

Scaling, networks, every step of a sampler, memories, constants and blur are inside. The category is
settled beforehand, so that nothing depends on a batch's values. A stochastic sampler takes its
noise as an input: torch's generator is no operation of a graph, and `prepare.noise` draws the same
from the image's pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from data_modules.reading.geometry import Window
from lightning_ad.deployment.repeated import Call, Function, as_region, share_repeated
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.scoring import checked_compare, checked_fuse
from lightning_ad.maths.diffusion import Noise, seeded_noise

INPUTS = ("image", "threshold", "noise")
OUTPUTS = ("anomaly_map", "score", "anomalous")


class Graph(nn.Module):
    """Scores images of one settled category by a detector on the CPU, in float32.

    Scores are of the ``window``, outside of which the images are padding.
    """

    def __init__(self, detector: AnomalyDetector, number: int, window: Window | None) -> None:
        super().__init__()
        detector.settle(number)
        self.detector, self.number = detector, number
        everything = slice(None)
        self.shown = (..., *(window or (everything, everything)))

    def forward(
        self, image: Tensor, threshold: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maps (B, H, W), scores (B,) and whether these lie above the threshold (B,).

        Args:
            image: (B, H, W, 3) uint8, red, green, blue.
            threshold: () float32.
            noise: (B, draws, 3, H, W) standard normal, where the method draws any.
        """
        detector = self.detector
        draws = iter(() if noise is None else noise.unbind(1))
        detector.noise_of = lambda _: lambda: next(draws)
        scaled = image.permute(0, 3, 1, 2).float() / 127.5 - 1
        category = torch.full((image.shape[0],), self.number, device=image.device)
        _, parts = checked_compare(detector, scaled, category)
        anomaly_map = checked_fuse(detector, parts, category)
        shown = {name: part[self.shown] for name, part in parts.items()}
        score = detector.score(anomaly_map[self.shown], shown)
        return anomaly_map.squeeze(1), score, score > threshold


class Program(NamedTuple):
    """A traced detector."""

    whole: ExportedProgram
    functions: list[Function]
    """What it calls more than once."""


def program_of(
    detector: AnomalyDetector,
    number: int,
    draws: int,
    window: Window | None = None,
    call: Call = as_region,
) -> Program:
    """The graph for batches of any length; the detector is no good for anything else after it.

    What is called more than once is called by ``call``, as torch calls regions if not said.

    Raises:
        ValueError: if the method does what no graph can.
    """
    height, width = detector.known_framing.seen
    inputs = [torch.zeros(2, height, width, 3, dtype=torch.uint8), torch.tensor(0.0)]
    any_length = {0: Dim.DYNAMIC}  # what a named dimension would not allow to be derived
    shapes: list[dict[int, Any] | None] = [any_length, None]
    if draws:
        inputs.append(torch.zeros(2, draws, 3, height, width))
        shapes.append(any_length)
    try:
        with torch.no_grad():
            graph = Graph(detector, number, window).eval()
            functions = share_repeated(detector, lambda: graph(*inputs), call)
            whole = torch.export.export(graph, tuple(inputs), dynamic_shapes=tuple(shapes))
    except Exception as error:
        raise ValueError(
            f"{type(detector).__name__} cannot be exported as it is configured, torch.export says: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return Program(whole, functions)


@contextmanager
def counted_draws(detector: AnomalyDetector) -> Iterator[list[int]]:
    """How often a method draws noise for each batch that is scored in here."""
    counts: list[int] = []

    def noise_of(image: Tensor) -> Noise:
        draw, number = seeded_noise(image), len(counts)
        counts.append(0)

        def counted() -> Tensor:
            counts[number] += 1
            return draw()

        return counted

    detector.noise_of = noise_of
    yield counts
    detector.noise_of = seeded_noise
