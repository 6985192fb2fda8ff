"""Draws pictures while others score: in a few threads, with a bounded number of them waiting."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Lock

THREADS = min(4, os.cpu_count() or 1)
WAITING = 4 * THREADS
"""Pictures in memory at most; who brings more waits."""


class Painter:
    """Runs drawings in threads.

    After the first that fails, as on a full disk, no more are tried: scores matter more.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, "painter")
        self._room = BoundedSemaphore(WAITING)
        self._lock = Lock()
        self.missing = 0
        self.failure: Exception | None = None
        """Why pictures are missing."""

    def submit(self, draw: Callable[[], None]) -> None:
        """Have something drawn soon."""
        self._room.acquire()
        self._pool.submit(self._run, draw)

    def finish(self) -> None:
        """Wait for all that was submitted."""
        self._pool.shutdown()

    def _run(self, draw: Callable[[], None]) -> None:
        try:
            if self.failure is None:
                draw()
                return
        except Exception as error:
            self.failure = self.failure or error
        finally:
            self._room.release()
        with self._lock:
            self.missing += 1
