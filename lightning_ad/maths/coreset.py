"""A few of many points that leave none of them far away, and the nearest of those to others.

The greedy choice of PatchCore's memory (Roth et al., CVPR 2022, algorithm 1; k-centre, Gonzalez
1985): again and again the point that is farthest from all chosen ones.

Written down plainly, each of the m choices reads all N points. Here points wait in line with a
distance that was true some choices ago and can only have become smaller. Only those at the head of
the line are brought up to date, many against many in one matrix product, and choices are made among
them while the farthest is farther than whatever waits: the same points are chosen, in minutes
instead of hours.
"""

import math

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from lightning_ad.speed.products import affine

HEAD = 4096
"""Points at the head of the line: with 128 dimensions they stay in a processor's cache."""

SLOW = 20_000
"""Choices from which on a progress bar is shown."""

SEARCHED = 1024
"""Members that a search compares with at once: larger products leave the caches."""


def random_projection(dimensions: int, reduced: int, seed: int) -> Tensor:
    """A Gaussian matrix (D, d) that keeps distances on average (Johnson and Lindenstrauss)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dimensions, reduced, generator=generator) / math.sqrt(reduced)


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Indices (count,) of points (N, D), each the farthest from those before; the first is 0."""
    line = _Line(points, count)
    with Progress(console=Console(stderr=True), disable=count < SLOW) as progress:
        task = progress.add_task("choosing patches", total=count)
        while line.chosen < count:
            line.choose_among_head()
            progress.update(task, completed=line.chosen)
    return line.choices


class _Line:
    """Points (N, D), each with its squared distance to the first ``seen`` choices."""

    def __init__(self, points: Tensor, count: int) -> None:
        self.points, self.norms = points, points.square().sum(1)
        self.distance = (points - points[0]).square().sum(1)
        self.distance[0] = -math.inf
        self.seen = torch.ones(len(points), dtype=torch.long, device=points.device)
        self.choices = torch.zeros(count, dtype=torch.long, device=points.device)
        self.chosen = 1

    def choose_among_head(self) -> None:
        """Choose while the farthest is at the head of the line, which may be not even once."""
        size = min(HEAD, len(self.points))
        far, head = self.distance.topk(min(size + 1, len(self.points)))
        waiting = float(far[size]) if len(far) > size else -math.inf
        head = head[:size]
        points, norms = self.points[head], self.norms[head]
        distance = self._brought_up_to_date(head, points, norms)
        while self.chosen < len(self.choices):
            best = int(distance.argmax())
            if float(distance[best]) < waiting:
                break
            self.choices[self.chosen] = head[best]
            self.chosen += 1
            to_best = torch.addmv(norms + norms[best], points, points[best], alpha=-2)
            torch.minimum(distance, to_best, out=distance)
            distance[best] = -math.inf
        self.distance[head], self.seen[head] = distance, self.chosen

    def _brought_up_to_date(self, head: Tensor, points: Tensor, norms: Tensor) -> Tensor:
        """Squared distances of points at the head to all choices, those of choices infinitely low.

        Only choices that some of them have not seen yet are looked at.
        """
        distance = self.distance[head]
        since = self.choices[int(self.seen[head].min()) : self.chosen]
        for part in since.split(HEAD) if len(since) else ():
            pairs = torch.addmm(self.norms[part], points, self.points[part].T, alpha=-2)
            torch.minimum(distance, pairs.amin(1) + norms, out=distance)
        return distance


def nearest(points: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N,) of points (N, D) to the nearest of the members (M, D), and which that is.

    The nearest maximises p.m - |m|^2 / 2, a matrix product; its distance is then taken from the
    difference itself, as that product would leave nothing of a small one.
    """
    best = points.new_full((points.shape[0],), -math.inf)
    index = torch.zeros_like(best, dtype=torch.long)
    for start in range(0, len(members), SEARCHED):
        part = members[start : start + SEARCHED]
        value, place = affine(points, part, -part.square().sum(1) / 2).max(1)
        closer = value > best
        best = torch.where(closer, value, best)
        index = torch.where(closer, place + start, index)
    return (points - members[index]).norm(dim=1), index


def around(members: Tensor, count: int) -> Tensor:
    """Indices (M, count) of each member's (M, D) nearest ones, itself the first."""
    parts = [
        torch.cdist(part, members).topk(min(count, len(members)), largest=False).indices
        for part in members.split(HEAD // 4)
    ]
    return torch.cat(parts)


def reweighted(distance: Tensor, points: Tensor, close: Tensor) -> Tensor:
    """Distances (N,) of points (N, D) to a member each, raised where that is unusual itself.

    ``close`` (N, b, D) holds the member and those around it. The factor is 1 minus the member's
    share of the sum of exp(distance) over them: small where all are as near (PatchCore, eq. 7).
    """
    to_close = (points[:, None] - close).norm(dim=2)
    return distance * (1 - (distance - to_close.logsumexp(1)).exp())
