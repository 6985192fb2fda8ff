"""The vocabulary of every data set: a record on disk, a batch in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from torch import Tensor

Split = Literal["train", "test"]
GOOD = "good"


@dataclass(frozen=True)
class Record:
    """One image of a data set; `mask` is where its mask must be, None where there is none."""

    image: Path
    mask: Path | tuple[Path, ...] | None
    label: int
    split: Split
    category: str
    defect: str

    @property
    def masks(self) -> tuple[Path, ...]:
        """All mask files of this image; their union marks the defect."""
        if self.mask is None:
            return ()
        return self.mask if isinstance(self.mask, tuple) else (self.mask,)


class Batch(TypedDict):
    """What a method gets.

    image: float32 (B, 3, H, W) in [-1, 1]; mask: uint8 0/1 (B, 1, H, W); label: int64 (B,), 1 is
    defective; category: int64 (B,), index into the data module's `categories`; path: B strings.
    """

    image: Tensor
    mask: Tensor
    label: Tensor
    category: Tensor
    path: list[str]


class Counts(NamedTuple):
    """Published number of images of one category."""

    train: int
    good: int
    defective: int
