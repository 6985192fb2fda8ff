"""Defects as DRAEM makes them: any texture, shining through in the shape of Perlin noise.

Zavrtanik, Kristan, Skočaj, ICCV 2021, section 3.3. The textures are photographs of a folder, as the
Describable Textures Dataset that the authors take, or those that ship inside scikit-image.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data_modules.defects import photograph
from data_modules.perlin import perlin_noise
from data_modules.problems import DataError
from data_modules.reading.images import Pixels, read_image
from data_modules.reading.walk import images_below

if TYPE_CHECKING:
    import albumentations as A

SHIPPED = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "moon")
"""Photographs inside scikit-image that are textures of a kind."""

COARSEST, FINEST = 0, 5
"""Perlin noise has 2^0 to 2^5 cells along each axis."""

THRESHOLD = 0.5
"""Noise above it is defect."""


class Pasted(NamedTuple):
    """An image and a copy with a defect, both (H, W, 3), and the defect's mask (H, W), 0 or 1."""

    normal: Pixels
    defective: Pixels
    mask: Pixels


class TexturedDefects:
    """Draws defective copies of normal images.

    Args:
        folder: with photographs of textures, in folders or not; scikit-image's if not given.

    Raises:
        DataError: if the folder holds no image.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.files = sorted(images_below(Path(folder).expanduser())) if folder else []
        if folder and not self.files:
            raise DataError(f"model.textures: there are no images in or below {folder}")

    def __call__(self, normal: Pixels, category: str, generator: np.random.Generator) -> Pasted:
        """Draw from an RGB image (H, W, 3).

        Half of the copies have no defect; three images in ten are turned. A photograph that bears
        the category's name is never a texture.
        """
        if generator.random() < 0.3:
            normal = _turned(normal, generator.uniform(-90, 90))
        height, width = normal.shape[:2]
        if generator.random() < 0.5:
            return Pasted(normal, normal, np.zeros((height, width), np.uint8))
        shape = _shape(height, width, generator)
        texture = self._texture(category, generator)
        small = cv2.resize(texture, (width, height), interpolation=cv2.INTER_AREA)
        texture = self._altered(small.astype(np.uint8), generator)
        opacity = 1 - generator.uniform(0, 0.8)
        weight = (opacity * shape)[..., None]
        mixed = (1 - weight) * normal + weight * texture
        return Pasted(normal, np.rint(mixed).astype(np.uint8), shape)

    def _texture(self, category: str, generator: np.random.Generator) -> Pixels:
        if self.files:
            return read_image(self.files[generator.integers(len(self.files))])
        names = [name for name in SHIPPED if name != category]
        pixels = photograph(names[generator.integers(len(names))])
        return pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)

    def _altered(self, texture: Pixels, generator: np.random.Generator) -> Pixels:
        self._alterations.set_random_seed(int(generator.integers(2**31)))
        return self._alterations(image=texture)["image"]

    @cached_property
    def _alterations(self) -> "A.Compose":
        """Three of ten changes of colour or direction."""
        import albumentations as A  # slow, and needed in training only

        changes: list[Callable[..., object]] = [
            A.RandomGamma((50, 200), p=1),
            A.RandomBrightnessContrast(0.2, 0, p=1),
            A.Sharpen(p=1),
            A.HueSaturationValue(50, 50, 0, p=1),
            A.Solarize((0.12, 0.5), p=1),
            A.Posterize(p=1),
            A.InvertImg(p=1),
            A.AutoContrast(p=1),
            A.Equalize(p=1),
            A.Rotate(45, border_mode=cv2.BORDER_REFLECT_101, p=1),
        ]
        return A.Compose([A.SomeOf(changes, n=3, replace=False, p=1)])


def _shape(height: int, width: int, generator: np.random.Generator) -> Pixels:
    """Where turned Perlin noise of a random scale is high (H, W)."""
    cells = 2 ** generator.integers(COARSEST, FINEST + 1, size=2)
    angles = generator.uniform(0, 2 * np.pi, size=cells + 1)
    side = 2**FINEST
    whole = (-(-height // side) * side, -(-width // side) * side)
    noise = perlin_noise(angles, whole)[:height, :width]
    turned = _turned(noise.astype(np.float32), generator.uniform(-90, 90))
    return (turned > THRESHOLD).astype(np.uint8)


def _turned(pixels: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, 3) turned about their centre; what comes into sight is 0."""
    height, width = pixels.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    return cv2.warpAffine(pixels, turn, (width, height))
