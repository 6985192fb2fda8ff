"""``--tiles 256 --overlap 0.25 --scales 1.0 0.5``: any experiment on photographs in tiles."""

from inspect import signature
from typing import Any

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from lightning_ad.commands.arguments import values_of
from lightning_ad.detector.tiled import Tiled

OPTIONS = ("tiles", "overlap", "scales")
TILED = f"{Tiled.__module__}.{Tiled.__qualname__}"
SETTLED = ("fit", "image_size")
"""Settings of the data that ``--tiles`` decides, whatever a file says."""


def add_tile_options(parser: Any) -> None:
    """Add the three options to a subcommand's parser."""
    parser.add_argument(
        "--tiles",
        type=PositiveInt | tuple[PositiveInt, PositiveInt] | None,
        default=None,
        help="see photographs in their own size, in tiles of so many pixels (or [height, width])",
    )
    parser.add_argument(
        "--overlap",
        type=float | None,
        default=None,
        help="least share of a tile that its neighbour shows, too: 0.25 if not given",
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=None,
        help="of the photograph, at which it is cut into tiles: 1.0 if not given",
    )


def with_tile_size(arguments: list[str]) -> list[str]:
    """The arguments, in which ``--tiles`` also says what the data hands to networks.

    Raises:
        SystemExit: if they say another thing themselves.
    """
    sizes = values_of(arguments, "--tiles")
    for name in SETTLED if sizes else ():
        if values_of(arguments, f"--data.{name}", f"--data.init_args.{name}"):
            raise SystemExit(
                f"--tiles {sizes[-1]} decides data.{name}: leave --data.{name} or --tiles out"
            )
    cut = ["--data.fit=tile"] if sizes else []
    return [*arguments, *(f"--data.image_size={size}" for size in sizes), *cut]


def wrap_in_tiles(settings: Namespace) -> None:
    """Let the settings' model be in tiles, where they ask for that.

    Raises:
        SystemExit: for options that belong to ``--tiles``, without it.
    """
    tiles, overlap, scales = (settings.get(name) for name in OPTIONS)
    tiled = settings.model.class_path.split(".")[-1] == Tiled.__name__
    if tiles is None and not tiled and (overlap is not None or scales is not None):
        raise SystemExit("--overlap and --scales belong to --tiles: give the side of the tiles")
    if tiles is not None and not tiled:
        own = {name: option.default for name, option in signature(Tiled).parameters.items()}
        own["method"] = settings.model
        settings.model = Namespace(class_path=TILED, init_args=Namespace(**own))
    for name, value in (("overlap", overlap), ("scales", scales)):
        if value is not None:
            settings.model.init_args[name] = value
