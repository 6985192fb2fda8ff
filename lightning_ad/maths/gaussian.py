"""A Gaussian at every place: moments, and the Mahalanobis distance to them.

PaDiM (Defard, Setkov, Loesch, Audigier, ICPR 2020, equations 1 and 2). For Gaussian data the
optimal denoiser is linear, so this is also the closed form of a diffusion model of patches.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Sums over images at each of P places; those of disjoint sets of images add up."""

    images: Tensor
    """() how many there were."""
    total: Tensor
    """(P, K) sum of the points x."""
    products: Tensor
    """(P, K, K) sum of x x^T."""

    def add(self, points: Tensor) -> None:
        """Count points (B, P, K) of further images, in place."""
        self.images.add_(len(points))
        self.total.add_(points.sum(0))
        by_place = points.transpose(0, 1)
        torch.baddbmm(self.products, by_place.transpose(1, 2), by_place, out=self.products)


def no_moments(places: int, dimensions: int) -> Moments:
    """Moments of no image; float32 will do for points of unit variance around 0."""
    zero = torch.zeros(places, dimensions)
    return Moments(torch.zeros(()), zero, torch.zeros(places, dimensions, dimensions))


def whitener(moments: Moments, ridge: float) -> tuple[Tensor, Tensor]:
    """Mean (P, K), and W (P, K, K) with W^T W = (covariance + ridge I)^-1, in place of products.

    W is the inverse of the lower Cholesky factor, so |W (x - mean)| is the Mahalanobis distance.
    """
    mean = moments.total / moments.images
    covariance = moments.products.div_(moments.images)
    identity = torch.eye(mean.shape[1])
    for place, centre in enumerate(mean):  # one at a time: all at once would double the memory
        here = covariance[place] - torch.outer(centre, centre) + ridge * identity
        factor = torch.linalg.cholesky(here.double())
        inverse = torch.linalg.solve_triangular(factor, identity.double(), upper=False)
        covariance[place] = inverse.float()
    return mean, covariance


def mahalanobis(points: Tensor, mean: Tensor, whiten: Tensor) -> Tensor:
    """Distances (B, P) of points (B, P, K) to the Gaussian of their place (see `whitener`)."""
    residual = (points - mean).permute(1, 2, 0)
    return torch.bmm(whiten, residual).norm(dim=1).T
