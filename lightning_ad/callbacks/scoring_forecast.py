"""Says when a test or a prediction ends, while it is under way."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ad.detector.processes import data_module
from lightning_ad.reports.times import at_and_in

FIRST_LOOK = 5.0
"""Seconds that are watched before anything is said."""
SHORTEST = 10.0
"""Seconds left below which nothing is said: the end is a line of its own."""

log = logging.getLogger(__name__)


class ScoringForecast(Callback):
    """A line on how many images are scored, how fast, and when all are, from the first process.

    It comes after five seconds and is brought up to date whenever it has become twice as long, so
    that a log tells how far hours of scoring are. Folders that are watched have no end.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier images."""
        self._start(trainer, trainer.test_dataloaders, trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier images."""
        self._start(trainer, trainer.predict_dataloaders, trainer.num_predict_batches)

    def _start(self, trainer: Trainer, loader: Any, batches: list[int | float]) -> None:
        self.images = 0
        if data_module(trainer).arrivals is None:
            at_once = loader.batch_sampler.batch_size * trainer.world_size
            self.images = min(len(loader.dataset), int(batches[0]) * at_once)
        self.scored, self.warm, self.next_look = 0, 0, FIRST_LOOK

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Look at the clock."""
        self._look(trainer, len(batch["path"]))

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Look at the clock."""
        self._look(trainer, len(batch["path"]))

    def _look(self, trainer: Trainer, images: int) -> None:
        """Look at the clock, which starts behind the first batch, as that warms up."""
        if not trainer.is_global_zero:
            return
        self.scored += trainer.world_size * images  # others are about as fast
        if not self.warm:
            self.began, self.warm = time.monotonic(), self.scored
        watched = time.monotonic() - self.began
        if watched >= self.next_look:
            self.next_look = 2 * watched
            self._say((self.scored - self.warm) / watched)

    def _say(self, pace: float) -> None:
        seconds = (self.images - self.scored) / pace
        if seconds >= SHORTEST:
            speed = f"{pace:,.0f}" if pace >= 10 else f"{pace:.2g}"
            log.info(
                "scored %s of %s images, %s images/s: ends %s",
                *(f"{self.scored:,}", f"{self.images:,}", speed, at_and_in(time.time() + seconds)),
            )
