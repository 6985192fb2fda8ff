"""What can be wrong with a data set on disk, and errors that say all of it at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

SHOWN = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file."""

    kind: str
    path: Path
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.detail}"


class DataError(ValueError):
    """A data set cannot be used as it lies on disk."""


class WrongTreeError(DataError):
    """The given root is not the expected data set at all."""


class ImageError(DataError):
    """One image or mask cannot be used.

    Where a loader's worker raised it, torch makes another of the message alone.
    """

    def __init__(self, problem: Problem | str) -> None:
        super().__init__(str(problem))
        if isinstance(problem, Problem):
            self.problem = problem


def report(title: str, problems: Sequence[Problem]) -> DataError:
    """One error that lists the problems, the first `SHOWN` in full."""
    lines = [f"{title}: {len(problems)} problem{'s' if len(problems) != 1 else ''}"]
    lines += [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    lines.append("`lightning doctor` looks at every pixel of a data set and lists what it finds.")
    return DataError("\n".join(lines))


def raise_any(title: str, problems: Iterable[Problem]) -> None:
    """Raise one error for all problems, if there are any."""
    found = list(problems)
    if found:
        raise report(title, found)
