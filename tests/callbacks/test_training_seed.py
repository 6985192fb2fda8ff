"""What training draws at random, batch by batch."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_ad.callbacks.training_seed import TrainingSeed


class Draws(LightningModule):
    """Keeps a random number of each training batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.drawn = []

    def training_step(self, batch, batch_idx):
        self.drawn.append(float(torch.rand(())))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def drawn(seed=0, **options):
    detector = Draws()
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=TrainingSeed(seed),
        **options,
    )  # fmt: skip
    trainer.fit(detector, DataLoader(torch.zeros(5, 1)))
    return detector.drawn


def test_each_batch_draws_its_own():
    assert len(set(drawn())) == 10


def test_accumulated_batches_draw_their_own():
    assert len(set(drawn(accumulate_grad_batches=2))) == 10


def test_draws_repeat_by_seed():
    assert drawn(seed=1) == drawn(seed=1) != drawn(seed=2)
