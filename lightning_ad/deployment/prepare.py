"""What an exported model is given of a photograph, as training read it; it lies beside the model.

Needs numpy and opencv-python-headless alone. Small enough to write anew in another language: for a
model with ``fit: squash``, `seen` is one call of cv2.resize.
"""

from typing import Any

import cv2
import numpy as np

READ = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION  # as in training


def noise(pixels: np.ndarray, draws: int) -> np.ndarray:
    """The noise (draws, 3, H, W) that a detector on a CPU draws from its pixels (H, W, 3)."""
    flat = pixels.transpose(2, 0, 1).ravel().astype(np.int64)
    weights = np.arange(1, flat.size + 1) * 2654435761 % (2**31 - 1)
    words = np.random.RandomState(int((flat * weights).sum() & 0xFFFFFFFF))  # MT19937, as torch's
    normal = [_normal(words, flat.size) for _ in range(draws)]
    return np.stack(normal).reshape(draws, 3, *pixels.shape[:2])


def _normal(words: np.random.RandomState, count: int) -> np.ndarray:
    """Box-Muller in blocks of 16; a last one that is not full is drawn anew, over the end."""
    rest = count % 16
    drawn = np.frombuffer(words.bytes(4 * count), "<u4")[: count - rest]
    if rest:
        drawn = np.append(drawn, np.frombuffer(words.bytes(64), "<u4"))
    first, second = (
        ((drawn & 0xFFFFFF).astype(np.float32) * 2**-24).reshape(-1, 2, 8).swapaxes(0, 1)
    )
    radius, angle = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
    pairs = (radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)).ravel()
    return np.append(pairs[: count - 16], pairs[-16:])


def seen(photograph: np.ndarray, preprocessing: dict[str, Any]) -> np.ndarray:
    """What the model sees (H, W, 3), in the order red, green, blue, of pixels as OpenCV reads."""
    if preprocessing["interpolation"] != "area":
        raise ValueError("this model wants it resized as Pillow does, see the card")
    if photograph.dtype == np.uint16:
        white = preprocessing["white_level"]
        bounded = np.minimum(photograph, white).astype(np.uint32)
        photograph = ((bounded * 255 + white // 2) // white).astype(np.uint8)
    frame, own = np.array(preprocessing["resize"]), np.array(photograph.shape[:2])
    factor = {"squash": frame / own, "crop": (frame / own).max(), "pad": (frame / own).min()}
    size = np.maximum(1, np.rint(factor[preprocessing["fit"]] * own)).astype(int)
    how = cv2.INTER_AREA if (own > size).any() else cv2.INTER_LINEAR
    resized = cv2.resize(photograph[..., ::-1], size[::-1].tolist(), interpolation=how)
    above, before = (frame - size) // 2  # negative where the photograph is cut
    resized = resized[max(0, -above) :, max(0, -before) :][: frame[0], : frame[1]]
    top, left, bottom, right = preprocessing["crop"]
    if preprocessing["fit"] == "pad":
        starts = np.maximum((above - top, before - left), 0)
        stops = np.minimum(np.add(size, (above, before)), (bottom, right)) - (top, left)
        if np.stack([starts, stops], 1).tolist() != preprocessing["shown"]:
            raise ValueError("its shape is another than that of the photographs exported for")
        rest = frame - size - (above, before)
        mirrored = cv2.BORDER_REFLECT_101
        resized = cv2.copyMakeBorder(resized, above, rest[0], before, rest[1], mirrored)
    return resized[top:bottom, left:right].astype(np.uint8)
