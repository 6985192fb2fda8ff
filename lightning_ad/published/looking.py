"""A look at the whole test set before it is scored, as protocols take that scale by it."""

from collections.abc import Iterator

from torch import Tensor

from lightning_ad.detector.detector import AnomalyDetector


def maps_of_test(detector: AnomalyDetector) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The categories (B,) and the maps of `compare` of this process's share of the test set."""
    trainer = detector.trainer
    for batch in trainer.test_dataloaders:  # type: ignore[union-attr]
        batch = trainer.strategy.batch_to_device(batch)
        category = detector.category_of(batch)
        with trainer.precision_plugin.test_step_context():
            _, parts = detector.compare(batch["image"], category)
        yield category, parts
