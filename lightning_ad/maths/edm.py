"""Denoising as Karras et al. parametrise it (arXiv 2206.00364, table 1, "Ours"), for unit variance.

D(y, sigma) is the network's guess at the clean x in y = x + sigma n, n ~ N(0, I). A mean variance
of 1 is the paper's sigma_data. Sigmas are shaped to broadcast against y.
"""

from collections.abc import Callable

from torch import Tensor

Network = Callable[[Tensor, Tensor], Tensor]
"""F(input of unit variance, sigma) -> output of unit variance."""


def denoise(network: Network, y: Tensor, sigma: Tensor) -> Tensor:
    """D = y / (1 + sigma^2) + sigma / sqrt(1 + sigma^2) F(y / sqrt(1 + sigma^2), sigma) (eq. 7)."""
    total = 1 + sigma**2
    return y / total + sigma / total.sqrt() * network(y / total.sqrt(), sigma)


def training_target(x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """What F has to return for D to be the clean x: of unit variance at every sigma (eq. 8)."""
    total = 1 + sigma**2
    return (x - y / total) * total.sqrt() / sigma
