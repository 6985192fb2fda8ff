"""One model for many callers: what waits is scored together, in the order in which it came."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Condition, Thread
from typing import NamedTuple

from data_modules.reading.images import Pixels
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.photograph import Finding


class BusyError(Exception):
    """More photographs wait than may."""


class Answer(NamedTuple):
    """What is said about one photograph."""

    finding: Finding
    seconds: float
    """Its share of the time that its batch took."""


class _Waiting(NamedTuple):
    pixels: Pixels
    category: str | None
    answer: Future[Answer]


class Batches:
    """Scores photographs in a thread of its own, as many at once as wait.

    Args:
        detector: nobody else uses it meanwhile.
        most: photographs in a batch.
        limit: photographs that may wait.
    """

    def __init__(self, detector: AnomalyDetector, most: int, limit: int) -> None:
        self._detector, self._most, self._limit = detector, most, limit
        self._waiting: deque[_Waiting] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="scoring")
        self._thread.start()

    def submit(self, photographs: Sequence[Pixels], category: str | None) -> list[Future[Answer]]:
        """Queue photographs (H, W, 3) of a category, all of them or none.

        Raises:
            BusyError: if so many do not find room.
        """
        asked = [_Waiting(pixels, category, Future()) for pixels in photographs]
        with self._changed:
            if self._closed or len(self._waiting) + len(asked) > self._limit:
                raise BusyError(f"{len(self._waiting)} photographs wait, {self._limit} may")
            self._waiting.extend(asked)
            self._changed.notify()
        return [each.answer for each in asked]

    def close(self) -> None:
        """Score what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            # Whose caller has gone is not scored.
            wanted = [each for each in batch if each.answer.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _next(self) -> list[_Waiting]:
        """What to score next; nothing when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            count = min(self._most, len(self._waiting))
            return [self._waiting.popleft() for _ in range(count)]

    def _answer(self, batch: list[_Waiting]) -> None:
        started = time.perf_counter()
        try:
            pixels, categories = zip(*((each.pixels, each.category) for each in batch), strict=True)
            findings = self._detector.predict_all(pixels, categories, [None] * len(batch))
        except Exception as error:
            for each in batch:
                each.answer.set_exception(error)
            return
        seconds = (time.perf_counter() - started) / len(batch)
        for each, finding in zip(batch, findings, strict=True):
            each.answer.set_result(Answer(finding, seconds))
