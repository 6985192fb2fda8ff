"""How alike two images of a category are, beyond what all of its images share.

Photographs of aligned parts are all alike, so plain pixels say little. An image is described by the
amplitudes of its coarse spatial frequencies, which a shift, another brightness or contrast, another
size or encoding hardly change, and what training images have in common is taken out by whitening:
their mean, and most of what they vary in together, such as the direction of a screw.

Different images of a category then have a likeness near 0; copies and further photographs of the
same thing come close to 1. Measured on MVTec AD's bottle and screw and on MTD: the most alike of
different test and training images have 0.56, 0.70 and 0.51. Copies moved by 2 pixels of 320,
darkened by 40 %, shrunk to 60 % or compressed to JPEG's quality 40 keep at least 0.67, and nearly
all over 0.8; the nearest other photographs of a tile have a median of 0.87.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from data_modules.reading.images import Pixels

SAME = 0.72  # likeness from which on two images show the same
FREQUENCIES = 12  # cycles per side, below this number
COARSE = 3.0  # deviation in pixels of what counts as lighting
SHRINKAGE = 2.0  # what all variances get added, in total variances per training image
Vectors = NDArray[np.float32]


def spectra(thumbnails: Pixels) -> Vectors:
    """Log amplitudes of the frequencies of grey images (N, S, S), as rows (N, D)."""
    images = thumbnails.astype(np.float32)
    fine = np.stack([image - cv2.GaussianBlur(image, (0, 0), COARSE) for image in images])
    fine -= fine.mean(axis=(1, 2), keepdims=True)
    fine /= fine.std(axis=(1, 2), keepdims=True) + 1e-3
    window = np.hanning(images.shape[1]).astype(np.float32)  # no edge where borders would meet
    amplitudes = np.abs(np.fft.rfft2(fine * window[:, None] * window))[..., :FREQUENCIES]
    both = np.concatenate([amplitudes[:, :FREQUENCIES], amplitudes[:, 1 - FREQUENCIES :]], axis=1)
    return np.log1p(both).reshape(len(images), -1).astype(np.float32)


def description(training: Pixels) -> Callable[[Pixels], Vectors]:
    """A category's view of images, from its training thumbnails (N, S, S).

    It turns thumbnails into rows of length 1, whose products are their likenesses. The fewer images
    there are, the more the covariance is shrunk to equal variances, as it would otherwise take what
    a single one shows for what all have in common.
    """
    known = spectra(training)
    mean = known.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(known - mean, rowvar=False, bias=True))
    floor = SHRINKAGE * values.sum() / len(known) + 1e-6
    whitening = vectors / np.sqrt(values + floor) @ vectors.T

    def describe(thumbnails: Pixels) -> Vectors:
        rows = (spectra(thumbnails) - mean) @ whitening
        return (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-9)).astype(np.float32)

    return describe
