"""Commands in processes of their own, forked from one that has imported what they need."""

from multiprocessing import get_context
from multiprocessing.process import BaseProcess

from lightning_ad.cli import main

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["lightning_ad.commands.experiment_cli", "lightning_ad.methods.ddad"]
)


def started(arguments: list[str]) -> BaseProcess:
    """The process that runs a command."""
    process = CONTEXT.Process(target=main, args=(arguments,))
    process.start()
    return process
