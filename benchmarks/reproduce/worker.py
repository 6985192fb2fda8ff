"""Runs one cell in a process of its own: it may fail, and its memory is its own.

The process is forked from one that has only imported the framework, as importing takes longer than
a small run.
"""

import json
import multiprocessing
import os
import resource
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml

FORKED_FROM = ["lightning_ad.commands.experiment_cli", "lightning_ad.networks", "torch"]


def run(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run `lightning` with ``arguments``, its output added to log.txt in ``folder``.

    Returns the run's metrics and what it took, or as ``error`` the reason of a failure in a line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(FORKED_FROM)
    here, there = context.Pipe(duplex=False)
    # A server that was started before keeps the environment of then.
    given = (arguments, folder, there, dict(os.environ))
    process = context.Process(target=_run, args=given)
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        process.join()
        return {"error": _death(process.exitcode or 0)}
    finally:
        process.kill()


def _death(code: int) -> str:
    return f"the process ended by signal {-code}" if code < 0 else f"the process ended with {code}"


def _run(
    arguments: list[str], folder: Path, answer: Connection, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    with (folder / "log.txt").open("a") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    start = time.monotonic()
    try:
        from lightning_ad.cli import main

        main(arguments)
        answer.send(_found(folder) | {"seconds": round(time.monotonic() - start, 1)})
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        answer.send({"error": " ".join(str(error).split()) or type(error).__name__})


def _found(folder: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    from benchmarks.reproduce.utilisation import utilisation

    found: dict[str, Any] = {"metrics": _read(folder / "metrics.json")}
    training = _read(folder / "training.json")
    for name in ("images", "seconds"):
        found[f"trained_{name}"] = sum(v for k, v in training.items() if k.endswith(f"/{name}"))
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    found["precision"] = config["trainer"]["precision"] or "32-true"
    return found | {"memory": _memory(), **utilisation(folder, training, found["precision"])}


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _memory() -> int:
    """Bytes this process held at most: of the GPU where there is one, else of the machine."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
