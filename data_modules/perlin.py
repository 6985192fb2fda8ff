"""Perlin noise: smooth random shapes of a chosen scale (Perlin, SIGGRAPH 1985 and 2002).

DRAEM (Zavrtanik et al., ICCV 2021) takes where it exceeds a threshold for the shape of a defect.
"""

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]


def perlin_noise(angles: Field, shape: tuple[int, int]) -> Field:
    """Noise (H, W) with a lattice of gradients in directions ``angles`` (rows + 1, columns + 1).

    Between the lattice's points the noise is interpolated by Perlin's quintic; ``shape`` is a
    multiple of (rows, columns). Values lie within [-1, 1] and are 0 on the lattice.
    """
    cells = np.array(angles.shape) - 1
    y, x = (np.arange(n) / (n // c) for n, c in zip(shape, cells, strict=True))
    row, column = np.meshgrid(y.astype(int), x.astype(int), indexing="ij")
    dy, dx = np.meshgrid(y % 1, x % 1, indexing="ij")

    def towards(down: int, right: int) -> Field:
        angle = angles[row + down, column + right]
        return np.cos(angle) * (dy - down) + np.sin(angle) * (dx - right)

    fade_y, fade_x = _quintic(dy), _quintic(dx)
    top = (1 - fade_x) * towards(0, 0) + fade_x * towards(0, 1)
    bottom = (1 - fade_x) * towards(1, 0) + fade_x * towards(1, 1)
    return np.sqrt(2) * ((1 - fade_y) * top + fade_y * bottom)


def _quintic(t: Field) -> Field:
    return t**3 * (t * (6 * t - 15) + 10)
