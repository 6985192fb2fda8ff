"""Stopping runs, reading and comparing what they leave behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lightning_ad.detector.detector import AnomalyDetector


@contextmanager
def stopped_in_second_epoch(phase: str) -> Iterator[None]:
    """The run in here ends with an error in the second epoch of a phase."""
    original = AnomalyDetector.training_step

    def step(self: AnomalyDetector, batch: object, batch_idx: int) -> torch.Tensor:
        if self.phase == phase and self.current_epoch == 1:
            raise RuntimeError("pulled the plug")
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnomalyDetector, "training_step", step)
        with pytest.raises(RuntimeError, match="pulled the plug"):
            yield


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint."""
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(a: Path, b: Path) -> None:
    """Every tensor of two checkpoints is equal to the last bit."""
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name
