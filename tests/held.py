"""A callback that keeps a run where a test can stop it, however slow the machine is."""

import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer


class Held(Callback):
    """Holds a run at the start of the second epoch of each phase for as long as a file exists.

    The run says in the file that it is there.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        while trainer.current_epoch == 1 and self.file.exists():
            self.file.write_text("held")
            time.sleep(0.01)
