"""What a detector remembers of the training images, for methods that need more than weights."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from lightning_ad.detector.processes import Rows, gather


class MemoryPass(ABC):
    """One look at every training image, without augmentation, under inference mode.

    Each process observes its share of the images, each once; what need not stay is forgotten.
    """

    @abstractmethod
    def observe(self, image: Tensor, category: Tensor, path: list[str]) -> None:
        """Take in training images (B, 3, H, W) in [-1, 1] of the categories (B,)."""

    @abstractmethod
    def finish(self) -> None:
        """Put together what all processes observed, the same in each of them.

        Runs in all processes; `of_all_processes` gives each what the others hold, by rank.
        """


class KeptRows(MemoryPass):
    """Keeps ``look(image)`` (B, ...) of every image.

    Attributes:
        rows: (N, ...) on the CPU after `finish`, in the order of the images' paths, which makes
            every later sum the same for any number of processes.
        category: (N,), of each row.
    """

    def __init__(self, look: Callable[[Tensor], Tensor]) -> None:
        self._look = look
        self._batches: list[Rows] = []

    def observe(self, image: Tensor, category: Tensor, path: list[str]) -> None:
        """Look at a batch."""
        rows = self._look(image).cpu()
        self._batches.append({"path": path, "category": category.cpu(), "rows": rows})

    def finish(self) -> None:
        """Gather the rows."""
        columns = gather(self._batches)
        self.rows, self.category = columns["rows"], columns["category"]
