"""How far an image lies from a bank of known ones, and which of equal-width bins that falls in.

D3AD (Tebbe, Tayyub, CVPR-W VAND 2024) reads off this distance how strongly an image has to be
noised. Distances are L1, in float32; rows (features of one image) may be stored in float16.
"""

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

ROWS_PER_CALL = 128
"""Rows of the bank compared at once: these stay in a processor's cache, which is three times as
fast as one call over the whole bank, and only so many are widened to float32."""


def distance_to_nearest(rows: Tensor, bank: Tensor, neighbours: int) -> Tensor:
    """Mean L1 distance (B,) of rows (B, D) to their nearest ``neighbours`` rows of bank (N, D)."""
    wide = rows.float()
    distances = torch.cat(
        [torch.cdist(wide, part.float(), p=1) for part in bank.split(ROWS_PER_CALL)], 1
    )
    return distances.topk(neighbours, largest=False).values.mean(1)


def leave_one_out_distance(bank: Tensor, neighbours: int) -> Tensor:
    """Mean L1 distance (N,) of each row of bank (N, D) to its nearest ``neighbours`` others.

    Shows a progress bar where it takes long. Holds all N x N distances, each computed once.
    """
    distances = torch.empty(len(bank), len(bank), device=bank.device)
    starts = range(0, len(bank), ROWS_PER_CALL)
    console = Console(stderr=True)
    for start in track(starts, "comparing images", console=console, disable=len(starts) < 8):
        rows = slice(start, start + ROWS_PER_CALL)
        wide = bank[rows].float()
        for part in bank[start:].split(ROWS_PER_CALL):
            columns = slice(start, start + len(part))
            pairs = torch.cdist(wide, part.float(), p=1)
            distances[rows, columns], distances[columns, rows] = pairs, pairs.T
            start += len(part)
    distances.fill_diagonal_(torch.inf)
    return distances.topk(neighbours, largest=False).values.mean(1)


def equal_width_edges(values: Tensor, bins: int) -> Tensor:
    """Edges (bins + 1,) of equally wide bins from the smallest to the largest value."""
    low, high = values.cpu().double().aminmax()
    return low + (high - low) * torch.linspace(0, 1, bins + 1, dtype=torch.float64)


def bin_of(values: Tensor, edges: Tensor) -> Tensor:
    """The bin (B,), from 1, that each value falls in between its row of edges (B, bins + 1).

    Values beyond the edges belong to the outermost bins.
    """
    inside = torch.searchsorted(edges, values[:, None].to(edges.dtype), right=True).squeeze(1)
    return inside.clamp(1, edges.shape[1] - 1)
