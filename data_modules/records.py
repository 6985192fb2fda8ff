"""The vocabulary of every data set: a record on disk, a batch in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

from torch import Tensor

Split = Literal["train", "test"]
GOOD = "good"
UNKNOWN = -1
"""The label of a photograph of which nobody has said what it shows."""


@dataclass(frozen=True)
class Record:
    """One image of a data set."""

    image: Path
    """A file below the data set's root."""
    mask: Path | tuple[Path, ...] | None
    """Where its mask, or the parts of it, must be; None where there is none."""
    label: int
    """0 is normal, 1 is defective, `UNKNOWN` is left open; training images are normal."""
    split: Split
    category: str
    defect: str
    """The kind of defect; `GOOD` for normal images; empty where the label is unknown."""
    specimen: str | None = None
    """What it shows, where several photographs show the same one; these are held out together."""

    @property
    def name(self) -> str:
        """Unlike that of any other record of a data set."""
        return str(self.image)

    @property
    def masks(self) -> tuple[Path, ...]:
        """All mask files of this image; their union marks the defect."""
        if self.mask is None:
            return ()
        return self.mask if isinstance(self.mask, tuple) else (self.mask,)


class Batch(TypedDict):
    """What a method gets.

    image: float32 (B, 3, H, W) in [-1, 1]; mask: uint8 0/1 (B, 1, H, W); label: int64 (B,), as in
    `Record`; category: int64 (B,), index into the data module's `categories`; path: B strings.
    Outside of training there may be a key more, judged: uint8 (B, 1, H, W), 0 where a pixel is none
    of the photograph's, or of none of its parts that matter.
    """

    image: Tensor
    mask: Tensor
    label: Tensor
    category: Tensor
    path: list[str]


class DescribedBatch(Batch):
    """What is tested or predicted: also the stored height and width (B, 2), and B kinds of defect.

    A kind is `Record.defect`.
    """

    size: Tensor
    kind: list[str]


class Counts(NamedTuple):
    """Published number of images of one category."""

    train: int
    good: int
    defective: int
