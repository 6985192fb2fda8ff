"""Which image is drawn when, on any number of processes.

Both are DistributedSamplers also on one process, so that Lightning leaves them in place: its own
would repeat test images to make processes even, and those would be counted twice.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

T = TypeVar("T")


def few_of(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, at even distances."""
    count = min(most, len(items))
    return [items[number * len(items) // count] for number in range(count)]


class Draw(NamedTuple):
    """Position of an image, and the epoch it is drawn in: what its augmentation depends on."""

    item: int
    epoch: int


class EveryItemOnce(DistributedSampler[int]):
    """Process r of n gets items r, r + n, ...: none repeated, none dropped, in order.

    A process for which nothing is left still says 1 of its length and yields nothing: Lightning
    would skip the whole loop on it, and the others would wait for it in the metrics' reduction.
    """

    def __init__(self, dataset: Dataset, rank: int, processes: int) -> None:
        super().__init__(dataset, num_replicas=processes, rank=rank, shuffle=False)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return max(1, len(range(self.rank, len(self.dataset), self.num_replicas)))  # type: ignore[arg-type]


class ShuffledDraws(DistributedSampler[Draw]):
    """A new order per epoch, from the seed and the epoch alone, in whole batches on every process.

    The images of the last incomplete global batch sit out this epoch. When there are too few for
    one, every process gets one smaller batch, and images are repeated only when there are fewer
    than processes. The k-th batches of all processes together do not depend on their number,
    given the same global batch size.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, rank: int, processes: int, seed: int
    ) -> None:
        super().__init__(dataset, num_replicas=processes, rank=rank, seed=seed)
        items: int = len(dataset)  # type: ignore[arg-type]
        per_process = max(1, items // processes)
        self.num_samples = per_process - per_process % min(batch_size, per_process)
        self.total_size = self.num_samples * processes

    def __iter__(self) -> Iterator[Draw]:
        items: int = len(self.dataset)  # type: ignore[arg-type]
        order = np.random.default_rng([self.seed, self.epoch]).permutation(items).tolist()
        for place in range(self.rank, self.total_size, self.num_replicas):
            yield Draw(order[place % items], self.epoch)

    def __len__(self) -> int:
        return self.num_samples
