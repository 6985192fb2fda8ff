"""A folder that photographs arrive in: each is given once, when it is whole."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch.utils.data import IterableDataset

from data_modules.problems import Problem
from data_modules.reading.store import file_stamp
from data_modules.records import DescribedBatch

PAUSE = 1.0  # seconds between two looks; a file that stays as it is for that long is whole
ENDLESS = 10**9  # batches: of an unknown number, a Trainer would hold one back to look ahead

log = logging.getLogger(__name__)

Stamp = tuple[str, int, int]


class Arrivals(IterableDataset[DescribedBatch]):
    """Batches of the photographs that arrive in a folder, until it is told to `stop`.

    A file that cannot be read is named, and tried again when it changes.

    Args:
        images: lists the photographs that are there now.
        read: reads some of them; None for a batch that holds nothing readable.
        at_once: photographs in a batch at most.
        known: names of photographs that were scored before.
    """

    def __init__(
        self,
        images: Callable[[], Sequence[Path]],
        read: Callable[[Sequence[Path]], tuple[DescribedBatch | None, list[Problem]]],
        at_once: int,
        known: set[str],
    ) -> None:
        self._images, self._read, self._at_once, self._known = images, read, at_once, known
        self._before: dict[str, Stamp] = {}
        self._unreadable: dict[str, Stamp] = {}
        self._stopped = False

    def __len__(self) -> int:
        return ENDLESS

    def stop(self) -> None:
        """End after the batch in hand; may be called by a signal's handler."""
        self._stopped = True

    def __iter__(self) -> Iterator[DescribedBatch]:
        while not self._stopped:
            whole = self._whole()
            for start in range(0, len(whole), self._at_once):
                batch, problems = self._read(whole[start : start + self._at_once])
                self._note(whole[start : start + self._at_once], problems)
                if batch is not None:
                    yield batch
                if self._stopped:
                    return
            time.sleep(PAUSE)

    def _whole(self) -> list[Path]:
        """The new photographs that have not changed since the last look."""
        now = {
            str(image): file_stamp(image)
            for image in self._images()
            if str(image) not in self._known
        }
        settled = [
            Path(name)
            for name, stamp in now.items()
            if stamp == self._before.get(name) and stamp != self._unreadable.get(name)
        ]
        self._before = now
        return settled

    def _note(self, images: Sequence[Path], problems: Sequence[Problem]) -> None:
        """Remember what was read; name what was not."""
        self._known.update(map(str, images))
        for problem in problems:
            log.warning("left out, %s", problem)
            self._known.discard(str(problem.path))
            self._unreadable[str(problem.path)] = file_stamp(problem.path)
