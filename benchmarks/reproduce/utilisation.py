"""How much of the machine training uses: the network's FLOPs a second over the matrix rate.

`CountFlops` goes into the run; the rate is that of one large matrix product, measured after it.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.flop_counter import FlopCounterMode

FILE = "flops.json"


class CountFlops(Callback):
    """Counts the floating-point operations of one step of each phase, into the run's flops.json."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start counting in the second step: the first may be unlike others."""
        self.counter = FlopCounterMode(display=False) if trainer.global_step == 1 else None
        if self.counter:
            self.counter.__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the operations an image takes."""
        if self.counter is None:
            return
        self.counter.__exit__(None, None, None)
        file = Path(trainer.default_root_dir) / FILE
        known = json.loads(file.read_text()) if file.exists() else {}
        known[str(pl_module.phase)] = (
            self.counter.get_total_flops() / trainer.train_dataloader.batch_size  # type: ignore[union-attr]
        )
        file.write_text(json.dumps(known))


class ChannelsLast(Callback):
    """Lays the weights out for a GPU's half-precision convolutions, in training too."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lay them out."""
        pl_module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def utilisation(run: Path, training: dict[str, float], precision: str) -> dict[str, Any]:
    """FLOPs a second of a run's training, and those of a matrix product in its precision.

    Nothing if the run's were not counted.
    """
    file = run / FILE
    flops = json.loads(file.read_text()) if file.exists() else {}
    seconds = sum(training[f"{phase}/seconds"] for phase in flops if f"{phase}/seconds" in training)
    if not seconds:
        return {}
    done = sum(flops[phase] * training[f"{phase}/images"] for phase in flops)
    rate = {"matrix_rate": matrix_rate(precision), "matrix_precision": precision}
    return {"flops": done / seconds, **rate}


def matrix_rate(precision: str) -> float:
    """FLOPs a second of the device's product of two large matrices in a Trainer's precision."""
    cuda = torch.cuda.is_available()
    side = 8192 if cuda else 1024
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = torch.rand(2, side, side, device="cuda" if cuda else "cpu", dtype=dtype)
    taken = []
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(a, b)
        if cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(taken[1:])
