"""Adapting a pretrained feature extractor to the normal images of a data set.

A feature extractor trained on photographs answers to differences that don't matter in a factory.
DDAD (arXiv 2305.15956, section 3.4) and D3AD tune it so that an image and its reconstruction give
the same features, without a single defect seen.
"""

import torch.nn.functional as F
from torch import Tensor

Pyramid = list[Tensor]
"""Feature maps (B, C, h, w), one per layer."""


def split(pyramid: Pyramid) -> tuple[Pyramid, Pyramid]:
    """Split the features (2B, C, h, w) of two sets of images that went through as one batch."""
    pairs = [halves(layer) for layer in pyramid]
    return [first for first, _ in pairs], [second for _, second in pairs]


def halves(both: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a batch (2B, ...), as slices: ONNX splits by no length that varies."""
    length = both.shape[0] // 2
    return both[:length], both[length:]


def cosine_loss(a: Pyramid, b: Pyramid) -> Tensor:
    """Sum over layers of 1 - cosine of whole flattened layers, averaged over the batch."""
    distances = [
        1 - F.cosine_similarity(layer_a.flatten(1), layer_b.flatten(1)).mean()
        for layer_a, layer_b in zip(a, b, strict=True)
    ]
    return sum(distances[1:], distances[0])


def adaptation_loss(
    reconstruction: Pyramid,
    target: Pyramid,
    frozen_reconstruction: Pyramid,
    frozen_target: Pyramid,
    preservation: float,
) -> Tensor:
    """DDAD's domain adaptation loss (arXiv 2305.15956, eq. 12).

    Pulls the features of a reconstruction to those of its target, while ``preservation`` holds both
    near what the frozen extractor says of the same images.
    """
    kept = cosine_loss(target, frozen_target) + cosine_loss(reconstruction, frozen_reconstruction)
    return cosine_loss(reconstruction, target) + preservation * kept
