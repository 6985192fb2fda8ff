"""What is run: one cell of the table is a method on a part of a data set, with a seed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

VALUE = (
    *("padim", "patchcore", "feature", "d3ad", "deco"),
    *("ddad", "texture", "simplenet", "draem"),
)
"""Methods, those first that give most for the time: seconds, minutes, and the slowest to score."""

WITHOUT_TRAINING = ("patchcore", "padim")
"""Methods that need a small share of the time, and no `--time` of their own."""

SMALL_SHARE = 0.15

SPLITS = ("tiles", "published")
"""Of the magnetic tiles: the one that measures defects, and the literature's."""


class Part(NamedTuple):
    """A part of a data set: what one table is about."""

    data: str
    """`mvtec` or `mtd`."""
    name: str
    """A category of MVTec AD, or a split of the magnetic tiles."""

    @property
    def title(self) -> str:
        """For people."""
        if self.data == "mvtec":
            return f"MVTec AD, {self.name}"
        return (
            f"Magnetic tiles, {'tiles kept apart' if self.name == 'tiles' else 'published split'}"
        )

    @property
    def options(self) -> list[str]:
        """What `lightning fit` has to be told, but for the root."""
        if self.data == "mvtec":
            return ["--data", "MVTecAD", "--data.category", self.name]
        return ["--data", "MTD", "--data.split", self.name]


class Cell(NamedTuple):
    """A method on a part of a data set."""

    method: str
    part: Part
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.method}-{self.part.data}-{self.part.name}-{self.seed}"

    @property
    def weight(self) -> float:
        """Its share of the time, beside others'."""
        return SMALL_SHARE if self.method in WITHOUT_TRAINING else 1.0


def parts(
    data: Sequence[str], categories: Sequence[str], splits: Sequence[str] = SPLITS
) -> list[Part]:
    """The parts of the data sets: of MVTec AD by category, of the magnetic tiles by split."""
    names = {"mvtec": categories, "mtd": splits}
    return [Part(data_set, name) for data_set in data for name in names[data_set]]


def cells(methods: Sequence[str], where: Sequence[Part], seeds: int) -> Iterator[Cell]:
    """All cells, most valuable first: a first seed of everything before a second of anything."""
    for seed in range(seeds):
        for method in sorted(methods, key=VALUE.index):
            for part in where:
                yield Cell(method, part, seed)


def share(cell: Cell, later: Sequence[Cell], seconds: float) -> float:
    """Seconds of those left that a cell may use, so that the ``later`` ones get theirs."""
    return seconds * cell.weight / (cell.weight + sum(other.weight for other in later))
