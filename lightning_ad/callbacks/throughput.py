"""Measures how fast a method scores images."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ad.detector.processes import of_all_processes
from lightning_ad.speed.clock import now


class Throughput(Callback):
    """Images per second and milliseconds per image of a test's steps, without loading and metrics.

    Logs `test/images_per_second`, the sum over the processes, and `test/milliseconds_per_image`,
    the time one image takes on one process. The first batch of each process warms up and does not
    count, unless it is the only one: then the figures include warming up, and understate the speed.

    Give it to the Trainer before other callbacks, or their work on a batch counts as well.
    """

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget earlier tests."""
        self.batches: list[tuple[int, float]] = []

    def on_test_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start the clock."""
        self.started = now(pl_module.device)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Stop the clock."""
        duration = now(pl_module.device) - self.started
        self.batches.append((len(batch["image"]), duration))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add up the processes and log."""
        counted = self.batches[1:] or self.batches
        own = (sum(images for images, _ in counted), sum(seconds for _, seconds in counted))
        working = [share for share in of_all_processes(own) if share[0]]
        images, seconds = (sum(column) for column in zip(*working, strict=True))
        values = {
            "test/images_per_second": sum(images / seconds for images, seconds in working),
            "test/milliseconds_per_image": 1000 * seconds / images,
        }
        # The same on all processes; of these the maximum, unlike the mean, is not rounded.
        pl_module.log_dict(values, sync_dist=True, reduce_fx="max")
