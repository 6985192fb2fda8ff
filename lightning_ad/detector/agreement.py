"""Whether data are framed as a detector needs them, and as its checkpoint was trained."""

from typing import Any

from data_modules.reading.framing import Framing
from data_modules.reading.geometry import written


def require_trained_framing(trained: Framing | None, datamodule: Any) -> None:
    """Raise a ValueError for images of another size, or fitted in another way, than trained on."""
    if trained is None:
        return
    if trained.image_size != datamodule.image_size:
        raise ValueError(
            f"the checkpoint was trained on images of {written(trained.image_size)} "
            f"pixels, data.image_size is {written(datamodule.image_size)}: leave "
            "data.image_size out"
        )
    framing = _framing_of(datamodule)
    if framing and trained.fit != framing.fit:
        raise ValueError(
            f"the checkpoint was trained with data.fit {trained.fit}, not {framing.fit}: "
            "leave data.fit out"
        )


def require_takable(title: str, takes_whole: bool, datamodule: Any) -> None:
    """Raise a ValueError for whole photographs where images are taken, or the reverse."""
    framing = _framing_of(datamodule)
    if framing is None:
        return
    if framing.whole and framing.tiling is None and not takes_whole:
        raise ValueError(
            f"{title} takes images of one size: with data.fit tile, --tiles cuts them for "
            "it (model: Tiled)"
        )
    if takes_whole and not framing.whole:
        raise ValueError(
            f"{title} takes photographs as they are: set data.fit to tile, not {framing.fit}"
        )


def _framing_of(datamodule: Any) -> Framing | None:
    """The framing; others' data modules may have none."""
    framing = getattr(datamodule, "framing", None)
    return framing if isinstance(framing, Framing) else None
