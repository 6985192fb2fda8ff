"""Notes what a run's training took: steps, epochs, images and seconds of each phase."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_ad.reports.files import write_json

FILE = "training.json"


class TrainingRecord(Callback):
    """At the end of a phase, writes `<phase>/steps` and the like into the run's training.json.

    Seconds add up over interruptions, what was trained twice not counted; images are those of all
    processes.
    """

    def __init__(self) -> None:
        self.before = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far, for a run that goes on from here."""
        return {"seconds": self._seconds()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.before = state_dict["seconds"]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the phase to the file, from the first process."""
        if not trainer.is_global_zero:
            return
        file = Path(trainer.default_root_dir) / FILE
        noted = read_training(file.parent)
        batches = trainer.global_step * trainer.accumulate_grad_batches
        images = batches * trainer.train_dataloader.batch_size * trainer.world_size  # type: ignore[union-attr]
        steps_per_epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
        phase = {
            "steps": trainer.global_step,
            "epochs": round(trainer.global_step / steps_per_epoch, 2),
            "images": images,
            "seconds": round(self._seconds(), 2),
        }
        own = {f"{pl_module.phase}/{name}": value for name, value in phase.items()}
        write_json(file, noted | own)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.started


def read_training(run: Path) -> dict[str, float]:
    """What a run's folder holds of `TrainingRecord`; nothing where no phase has ended."""
    file = run / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
