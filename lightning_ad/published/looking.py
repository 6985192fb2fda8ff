"""A look at the whole test set before it is scored, as protocols take that scale by it."""

from collections.abc import Iterator

from torch import Tensor

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.scoring import checked_compare


def maps_of_test(detector: AnomalyDetector) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The categories (B,) and the maps that this process's share of the test set is scored by."""
    trainer = detector.trainer
    for batch in trainer.test_dataloaders:  # type: ignore[union-attr]
        batch = trainer.strategy.batch_to_device(batch)
        category = detector.category_of(batch)
        with trainer.precision_plugin.test_step_context():
            _, parts = checked_compare(detector, batch["image"], category)
        yield category, parts
