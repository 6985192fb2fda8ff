"""Which sizes of images a network can take."""

from torch import nn

from data_modules.reading.geometry import Size, height_and_width, plain, written


def require_multiple(image_size: Size, network: nn.Module, name: str) -> None:
    """Raise a ValueError unless a network shrinks the sides of the data's images without a rest.

    It names the network, ``model.<name>``, and the nearest sizes that it takes. A network without a
    ``factor`` takes all.
    """
    factor: int = getattr(network, "factor", 1)
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
            f"data.image_size ({written(image_size)}) must be a multiple of {factor}, by which "
            f"model.{name} shrinks an image: set it to {nearest}"
        )
