"""Weights & Biases that just works: offline without an account, one run per run folder."""

import os
import secrets
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

ID_FILE = "wandb_id"


def is_offline() -> bool:
    """Whether W&B should stay offline: the user chose no mode and is not logged in."""
    import wandb  # slow, and needed by runs that log there only

    return "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)


def new_run_id() -> str:
    """An id that no W&B run has."""
    return secrets.token_hex(4)


def wandb_run_id(run_dir: Path) -> str:
    """The id of the run in this folder, so that a resumed run stays one W&B run; else a new one."""
    file = run_dir / ID_FILE
    return file.read_text() if file.exists() else new_run_id()


def remember_run_id(run_dir: Path, run_id: str) -> None:
    """Keep the id of the W&B run in this folder, once there is something to go on with."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / ID_FILE).write_text(run_id)


def describe_run(
    run_dir: Path, run_id: str, method: str, data: str, category: str
) -> dict[str, Any]:
    """Arguments of Lightning's WandbLogger: id, readable name, group and job type."""
    return {
        "save_dir": str(run_dir),
        "mode": "offline" if is_offline() else None,
        "id": run_id,
        "resume": "allow",
        "name": f"{method} {data} {category}",
        "group": f"{method} {data}",
        "job_type": category,
    }


def loggers_of(setting: Any) -> list[Logger]:
    """The loggers in a Trainer's option ``logger``: one, a list of them, or a bool."""
    found = setting if isinstance(setting, list) else [setting]
    return [logger for logger in found if isinstance(logger, Logger)]


@rank_zero_only
def finish(logger: WandbLogger, checkpoint: Path | None) -> None:
    """End a W&B run, so that the next one in this process is another.

    A ``checkpoint`` becomes an artifact; offline it waits for ``wandb sync`` with all the rest.
    """
    run = logger.experiment
    if checkpoint:
        run.log_artifact(str(checkpoint), name=f"{run.id}-{checkpoint.stem}", type="model")
    run.finish()
