"""Photographs of which some may be broken: the others are scored, the broken ones are listed."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, default_collate

from data_modules.problems import ImageError, Problem
from data_modules.reading.dataset import Described, DescribedItem
from data_modules.records import DescribedBatch


class Readable(Dataset[DescribedItem | Problem]):
    """A dataset that gives what is wrong with an image that cannot be read in its place.

    Where its `ReadableLoader` iterates, `problems` grows by what was found.
    """

    def __init__(self, dataset: Described, problems: list[Problem]) -> None:
        self.dataset = dataset
        self.problems = problems

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> DescribedItem | Problem:
        try:
            return self.dataset[index]
        except ImageError as error:
            return error.problem


def readable(items: list[DescribedItem | Problem]) -> tuple[DescribedBatch | None, list[Problem]]:
    """A batch of the images that could be read, if any, and what is wrong with the others."""
    found = [item for item in items if not isinstance(item, Problem)]
    problems = [item for item in items if isinstance(item, Problem)]
    return default_collate(found) if found else None, problems


class ReadableLoader(DataLoader):
    """Batches of what can be read of a `Readable`; where nothing can, there is none."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        dataset: Any = self.dataset
        for batch, problems in super().__iter__():
            dataset.problems.extend(problems)
            if batch is not None:
                yield batch
