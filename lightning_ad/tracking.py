"""Weights & Biases that just works: offline without an account, one run per run folder."""

import os
from pathlib import Path
from typing import Any

import wandb


def choose_wandb_mode() -> None:
    """Go offline unless the user chose a mode or is logged in, so that nothing ever asks."""
    if "WANDB_MODE" not in os.environ and not wandb.Settings().api_key and not wandb.api.api_key:
        os.environ["WANDB_MODE"] = "offline"


def wandb_run_id(run_dir: Path) -> str:
    """The id of the run in this folder, made once, so that a resumed run stays one W&B run."""
    file = run_dir / "wandb_id"
    if not file.exists():
        run_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(wandb.util.generate_id())
    return file.read_text()


def describe_run(run_dir: Path, method: str, data: str, category: str) -> dict[str, Any]:
    """Arguments of Lightning's WandbLogger: id, readable name, group and job type."""
    return {
        "save_dir": str(run_dir),
        "id": wandb_run_id(run_dir),
        "resume": "allow",
        "name": f"{method} {data} {category}",
        "group": f"{method} {data}",
        "job_type": category,
    }
