"""Where a frame of fixed size shows a photograph: squashed, padded or cropped, or as it is."""

from typing import Literal, NamedTuple, TypeAlias

Fit = Literal["squash", "pad", "crop", "tile"]
Size: TypeAlias = int | tuple[int, int]
"""The side of a square, or height and width."""


Window: TypeAlias = tuple[slice, slice]
"""Rows and columns."""


class Place(NamedTuple):
    """How large a photograph is in its frame, and where its first pixel lies, in pixels of it."""

    height: int
    width: int
    top: int
    """Rows above it; negative where so many of its own are cut off. `left` alike."""
    left: int


def height_and_width(size: Size) -> tuple[int, int]:
    """Both sides of a size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def plain(size: Size) -> Size:
    """A size as one number where it is square."""
    height, width = height_and_width(size)
    return height if height == width else (height, width)


def written(size: Size) -> str:
    """A size for people: one number, or height and width in the order of the option."""
    return str(size) if isinstance(size, int) else f"[{size[0]}, {size[1]}]"


def place_of(photograph: tuple[int, int], frame: tuple[int, int], fit: Fit) -> Place:
    """Where a frame (H, W) shows a photograph (H, W).

    `squash` stretches it to the frame; `pad` shows all of it in its own aspect ratio, in the
    middle; `crop` fills the frame with its middle. No side gets thinner than a pixel. With `tile`
    the photograph is its own frame.
    """
    if fit == "tile":
        return Place(*photograph, 0, 0)
    if fit == "squash":
        return Place(*frame, 0, 0)
    factors = [side / own for side, own in zip(frame, photograph, strict=True)]
    factor = min(factors) if fit == "pad" else max(factors)
    height, width = (max(1, round(factor * own)) for own in photograph)
    return Place(height, width, (frame[0] - height) // 2, (frame[1] - width) // 2)


def visible(start: int, length: int, frame: int) -> slice:
    """The pixels of a frame's side that show what begins at `start` and is so long."""
    return slice(max(0, start), min(frame, start + length))
