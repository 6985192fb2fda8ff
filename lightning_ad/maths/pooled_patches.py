"""Patch embeddings of PatchCore and SimpleNet as their authors compute them.

Roth et al., CVPR 2022, section 3.1, whose code SimpleNet (Liu et al., CVPR 2023) took over: all
values in a 3x3 patch of a layer are averaged to a vector of fixed length, in the order channel,
row, column; the vectors of all layers once more to one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ad.maths import maps


def pooled_patches(layers: list[Tensor], dimensions: int) -> Tensor:
    """Embeddings (B, D, h, w) of patches of maps (B, C_i, h_i, w_i), on the first map's grid.

    Each patch (zeros beyond the border) is averaged to D values, its deeper layers' are resized
    bilinearly, and of all layers' values, one layer after the other, equal runs are averaged again
    to D values.
    """
    size = (layers[0].shape[-2], layers[0].shape[-1])
    # Averaging within a patch and resizing between patches commute: the cheaper comes first.
    vectors = [maps.from_cells(_patch_vectors(layer, dimensions), size) for layer in layers]
    stacked = torch.cat(vectors, 1).flatten(2).transpose(1, 2)  # (B, h w, layers D)
    pooled = F.adaptive_avg_pool1d(stacked, dimensions)
    return pooled.transpose(1, 2).unflatten(2, size)


def _patch_vectors(layer: Tensor, dimensions: int) -> Tensor:
    """Averaged values (B, D, h, w) of each 3x3 patch of a map (B, C, h, w)."""
    values = F.unfold(layer, 3, padding=1).transpose(1, 2)  # (B, h w, 9 C)
    pooled = F.adaptive_avg_pool1d(values, dimensions)
    return pooled.transpose(1, 2).unflatten(2, layer.shape[-2:])
