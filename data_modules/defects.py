"""The recipe of pasted defects: specks and scratches, blobs, and large missing or swapped parts.

In the manner of DTD-Synthetic (Aota, Tong, Okatani, WACV 2023), of clearly different scale. Nothing
changes outside a defect's mask. Swapped parts come from the photographs that ship inside
scikit-image.
"""

from collections.abc import Callable

import cv2
import numpy as np

from data_modules.reading.images import Pixels

SIDE = 128  # pixels of the square that the recipe's lengths are meant for
PHOTOGRAPHS = ("brick", "grass", "gravel")

Paste = tuple[Pixels, Pixels]  # what to see inside the shape, and the shape (0/1)


def photograph(name: str) -> Pixels:
    """A gray photograph of 512 x 512 pixels."""
    import skimage.data  # here, as only few runs need it

    return getattr(skimage.data, name)()


def other_photographs(name: str) -> list[Pixels]:
    """The photographs but the one of that name."""
    return [photograph(other) for other in PHOTOGRAPHS if other != name]


def blend(normal: Pixels, content: Pixels, shape: Pixels) -> Paste:
    """Content inside the shape, its edge softened inwards."""
    weight = cv2.GaussianBlur(shape.astype(np.float32), (3, 3), 0.7) * shape
    mixed = normal + weight * (content.astype(np.float32) - normal)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8), shape


def paste_defect(normal: Pixels, category: str, generator: np.random.Generator) -> Paste:
    """A copy of any RGB image (H, W, 3) with one defect of the recipe, and the defect's mask (0/1).

    The defect is as large, in proportion, as in a textured tile; content is never swapped in from
    the photograph that has the category's name.
    """
    size = (normal.shape[1], normal.shape[0])
    small = cv2.resize(normal, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)
    paste = list(DEFECTS.values())[generator.integers(len(DEFECTS))]
    drawn, shape = paste(small, other_photographs(category), generator)
    content = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    # Any overlap counts, so that a thin scratch does not vanish from a small image.
    covered = cv2.resize(shape.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    mask = covered.astype(np.uint8)
    per_channel = np.broadcast_to(content.reshape(*normal.shape[:2], -1), normal.shape)
    channels = [blend(normal[..., i], per_channel[..., i], mask)[0] for i in range(3)]
    return np.stack(channels, axis=-1), mask


def _shifted(normal: Pixels, generator: np.random.Generator, amounts: tuple[int, int]) -> Pixels:
    """The texture itself, clearly darker or lighter."""
    sign = 1 if generator.random() < 0.5 else -1
    shift = sign * int(generator.integers(*amounts))
    return np.clip(normal.astype(int) + shift, 0, 255).astype(np.uint8)


def _outline(generator: np.random.Generator, radius: tuple[int, int]) -> Pixels:
    """An irregular filled shape."""
    reach = int(generator.integers(*radius))
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wobble = sum(
        generator.uniform(0.05, 0.2) * np.sin(order * angles + generator.uniform(0, 2 * np.pi))
        for order in (1, 2, 3)
    )
    distance = reach * np.clip(1 + wobble, 0.4, 1.4)
    centre = generator.integers(int(reach * 1.2), SIDE - int(reach * 1.2), size=2)
    points = centre + distance[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    shape = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(shape, [np.rint(points).astype(np.int32)], 1)
    return shape


def _specks(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    shape = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(generator.integers(2, 5)):
        x, y = generator.integers(8, SIDE - 8, size=2)
        cv2.circle(shape, (int(x), int(y)), int(generator.integers(2, 5)), 1, -1)
    return _shifted(normal, generator, (90, 130)), shape


def _scratch(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    shape = np.zeros((SIDE, SIDE), np.uint8)
    steps = generator.normal(0, 0.25, size=12).cumsum() + generator.uniform(0, 2 * np.pi)
    walk = 5 * np.stack([np.cos(steps), np.sin(steps)], axis=1).cumsum(axis=0)
    points = np.rint(walk - walk.mean(axis=0) + generator.integers(40, SIDE - 40, size=2))
    cv2.polylines(shape, [points.astype(np.int32)], False, 1, int(generator.integers(2, 4)))
    return _shifted(normal, generator, (90, 130)), shape


def _blob(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    stained = cv2.GaussianBlur(_shifted(normal, generator, (50, 80)), (0, 0), 2)
    return stained.astype(np.uint8), _outline(generator, (9, 16))


def _missing(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    noise = generator.normal(generator.integers(20, 60), 3, size=normal.shape)
    return np.clip(noise, 0, 255).astype(np.uint8), _outline(generator, (22, 34))


def _swapped(normal: Pixels, others: list[Pixels], generator: np.random.Generator) -> Paste:
    other = others[generator.integers(len(others))]
    y, x = generator.integers(other.shape[0] - SIDE + 1, size=2)
    return other[y : y + SIDE, x : x + SIDE], _outline(generator, (22, 34))


DEFECTS: dict[str, Callable[[Pixels, list[Pixels], np.random.Generator], Paste]] = {
    "specks": _specks,
    "scratch": _scratch,
    "blob": _blob,
    "missing": _missing,
    "swapped": _swapped,
}
