"""Which sizes of images a network can take."""

from data_modules.reading.geometry import Size, height_and_width, plain, written


def require_multiple(image_size: Size, factor: int, why: str) -> None:
    """Raise a ValueError unless both sides of the data's images are multiples of ``factor``.

    It says why, and names the nearest sizes that are.
    """
    sides = height_and_width(image_size)
    if any(side % factor for side in sides):
        below, above = (
            written(plain((round_to(sides[0]), round_to(sides[1]))))
            for round_to in (
                lambda side: max(1, side // factor) * factor,
                lambda side: -(-side // factor) * factor,
            )
        )
        nearest = below if below == above else f"{below} or {above}"
        raise ValueError(
            f"data.image_size ({written(image_size)}) must be a multiple of {factor}, {why}: set "
            f"it to {nearest}"
        )
