"""The trivial neighbour: what image AUROC takes no method at all.

An image's score is its distance to the nearest training image of its category, both shrunk to
16 x 16 grey pixels and brought to mean 0 and deviation 1. A method is worth what it adds to that.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray

from data_modules.catalogue import Catalogue
from data_modules.reading.images import Pixels, read_image
from data_modules.records import Record

SIDE = 16
THUMBNAIL = 64


def thumbnail(image: Pixels) -> Pixels:
    """Grey copy (64, 64) of an RGB image (H, W, 3)."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.uint8)


def neighbour_distances(training: Pixels, images: Pixels) -> NDArray[np.float32]:
    """Distance (M,) of thumbnails (M, 64, 64) to the nearest of the training ones (N, 64, 64).

    It is the root of the mean squared difference of their pixels, from 0 to 2.
    """
    nearest = (_standardised(images) @ _standardised(training).T).max(axis=1)
    return np.sqrt(np.maximum(2 - 2 * nearest, 0))


def auroc(scores: NDArray[np.float32], labels: Sequence[int]) -> float | None:
    """Probability that a defective image (label 1) outscores a normal one; ties count half.

    None unless there are both.
    """
    defective = np.asarray(labels) == 1
    good = np.sort(scores[~defective])
    if not 0 < len(good) < len(scores):
        return None
    below = [np.searchsorted(good, scores[defective], side).mean() for side in ("left", "right")]
    return float(np.mean(below)) / len(good)


def neighbour_auroc(data: Catalogue) -> dict[str, float | None]:
    """Image AUROC (0 to 1) of the trivial neighbour, by category; reads every image once."""
    found = {}
    for category in data.categories:
        records = [record for record in data.records() if record.category == category]
        training = [record for record in records if record.split == "train"]
        tested = [record for record in records if record.split == "test"]
        scores = neighbour_distances(_thumbnails(training), _thumbnails(tested))
        found[category] = auroc(scores, [record.label for record in tested])
    return found


def _thumbnails(records: Sequence[Record]) -> Pixels:
    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(lambda record: thumbnail(read_image(record.image)), records)))


def _standardised(thumbnails: Pixels) -> NDArray[np.float32]:
    """Rows of 256 grey values with mean 0 and length 1."""
    blocks = thumbnails.reshape(len(thumbnails), SIDE, -1, SIDE, THUMBNAIL // SIDE)
    rows = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(len(thumbnails), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)
