"""Patches of a feature pyramid as points of one whitened space.

A patch is described by the deep features around it (PatchCore, Roth et al., CVPR 2022, section
3.1): every layer averaged over 3x3 cells, deeper ones resized to the first one's grid, all of them
side by side. Principal components of normal patches then make the description short, and
whitening decides how much the directions count in which normal patches hardly differ.

Everything here but the fit is linear and is not applied in that order: a patch's position in the
space is a sum over layers of projections, taken at each layer's own resolution.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_ad.maths import maps


class PatchSpace(NamedTuple):
    """An affine map from described patches f (D,) to points x = (f - mean) @ projection (K,)."""

    mean: Tensor
    """(D,) mean of normal patches."""
    projection: Tensor
    """(D, K) scaling of the layers, principal directions and whitening in one."""


def describe(layers: list[Tensor]) -> Tensor:
    """Descriptions (B, D, h, w) of patches, from maps (B, C_i, h_i, w_i) whose first is h x w."""
    size = (layers[0].shape[-2], layers[0].shape[-1])
    return torch.cat([maps.from_cells(_averaged(layer), size) for layer in layers], 1)


def project(layers: list[Tensor], space: PatchSpace) -> Tensor:
    """Points (B, K, h, w) of patches: `describe`, then the space's map, in a quarter of the work.

    Averaging and resizing are linear, with weights that sum to 1, and so commute with a projection
    of channels: K of them are averaged and resized instead of D.
    """
    size = (layers[0].shape[-2], layers[0].shape[-1])
    parts = space.projection.split([layer.shape[1] for layer in layers])
    points = -(space.mean @ space.projection).view(1, -1, 1, 1)
    for layer, part in zip(layers, parts, strict=True):
        projected = F.conv2d(layer, part.T[:, :, None, None])
        points = points + maps.from_cells(_averaged(projected), size)
    return points


def _averaged(layer: Tensor) -> Tensor:
    return F.avg_pool2d(layer, 3, 1, 1, count_include_pad=False)


def fit_space(
    patches: Tensor, channels: list[int], components: int, whitening: float
) -> PatchSpace:
    """The space of described normal patches (N, D) whose layers have so many ``channels``.

    Each layer is divided by the square root of the sum of its channels' variances, so that none
    outweighs the others. With the eigenvectors u_k of the covariance that is left and its
    eigenvalues e_k, x_k is proportional to u_k^T f / e_k^(whitening / 2): a ``whitening`` of 0
    leaves distances as they are, 1 gives every direction the same variance, 0.5 is between. The
    variances of x have mean 1.

    Raises:
        ValueError: for too few patches, too many components, or patches that do not vary.
    """
    _require_enough(patches, components)
    mean = patches.double().mean(0)
    centred = patches.double() - mean
    covariance = centred.T @ centred / len(patches)
    scale = _scale_of_layers(covariance.diagonal(), channels)
    values, vectors = torch.linalg.eigh(covariance / scale[:, None] / scale)
    values, vectors = values.flip(0)[:components], vectors.flip(1)[:, :components]
    if values[-1] < 1e-9 * values[0]:
        varying = int((values >= 1e-9 * values[0]).sum())
        raise ValueError(
            f"the training images' features vary in {varying} directions only: set "
            f"model.components to at most {varying}, or look for images that are all the same"
        )
    whitened = _signed(vectors) * values ** (-whitening / 2)
    unit = (values ** (1 - whitening)).mean().sqrt()
    return PatchSpace(mean.float(), (whitened / unit / scale[:, None]).float())


def _require_enough(patches: Tensor, components: int) -> None:
    count, dimensions = patches.shape
    if components > dimensions:
        raise ValueError(
            f"model.components is {components}, but the chosen layers of model.features have "
            f"{dimensions} channels together: set it to at most {dimensions}, or take more layers"
        )
    if count <= components:
        raise ValueError(
            f"{count} patches of the training images are too few for model.components "
            f"{components}: add images, or set it below {count}"
        )


def _scale_of_layers(variances: Tensor, channels: list[int]) -> Tensor:
    """The scale (D,) that each channel is divided by: its layer's."""
    totals = [layer.sum() for layer in variances.split(channels)]
    for number, total in enumerate(totals, 1):
        if not total > 0:
            raise ValueError(
                f"the features of layer {number} of {len(totals)} are the same on all training "
                "patches: the images are constant, or the backbone has no weights"
            )
    return torch.cat(
        [total.sqrt().expand(count) for total, count in zip(totals, channels, strict=True)]
    )


def _signed(vectors: Tensor) -> Tensor:
    """Eigenvectors in columns, each with its largest entry positive: libraries differ in signs."""
    largest = vectors.abs().argmax(0, keepdim=True)
    return vectors * vectors.gather(0, largest).sign()
