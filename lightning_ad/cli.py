"""The command ``lightning``: which word was typed, and an error in a few lines."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module, metadata

from lightning_ad.commands.explain import explained_errors

EXPERIMENT = "lightning_ad.commands.experiment_cli"
COMMANDS = {
    "fit": (EXPERIMENT, "train, calibrate and test: a whole experiment"),
    "validate": (EXPERIMENT, "the loss on held-out normal images"),
    "test": (EXPERIMENT, "metrics and panels of a finished run"),
    "predict": (EXPERIMENT, "scores and heat maps of any images"),
    "doctor": ("data_modules.doctor.command", "check a data set and list what is wrong with it"),
    "categories": ("lightning_ad.commands.categories", "the categories of an experiment's data"),
    "export": ("lightning_ad.commands.export", "a file that scores without this program"),
    "benchmark": ("lightning_ad.commands.benchmark", "how fast a checkpoint scores here"),
    "serve": ("lightning_ad.commands.serve", "a page and an address that score photographs"),
    "import": ("lightning_ad.commands.import_weights", "go on from the authors' checkpoints"),
    "report": ("lightning_ad.commands.report", "one HTML page of a run, or of several compared"),
    "summarize": ("lightning_ad.commands.summarize", "one table over many runs"),
    "sweep": ("lightning_ad.commands.sweep", "search for settings with a W&B sweep file"),
}
"""Each command's module, imported when it is called, and what it does."""

EXPECTED_WARNINGS = (
    ".*module\\(s\\) in eval mode at the start of training.*",  # what a phase freezes
    ".*smaller than the logging interval.*",
    ".*does not have many workers.*",
    ".*instantiate_classes.*",
    ".*Checkpoint directory.*exists and is not empty.*",  # the last epoch, to resume from
    ".*JsonargparseDeprecationWarning.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*local_dir_use_symlinks.*",
    ".*`IterableDataset` has `__len__` defined.*",  # a folder that is watched, by one process
)
"""What libraries warn of and this program means to do, or cannot change."""


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<11}{does}" for name, (_, does) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: lightning COMMAND [options]",
            "",
            *lines,
            "",
            "'lightning COMMAND --help' lists a command's options, 'lightning --version' versions.",
        ]
    )


def versions() -> str:
    """What a report of a fault should name."""
    used = ", ".join(f"{name} {metadata.version(name)}" for name in ("lightning", "torch"))
    return f"lightning-ad {metadata.version('lightning-ad')} ({used})"


class Messages(logging.Handler):
    """Writes to what is the error stream now: while a progress bar is drawn, a line above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)


def run(arguments: list[str]) -> None:
    """Run one command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for names that are not UTF-8
    word = arguments[0] if arguments else "--help"
    if word in ("--help", "-h", "--version"):
        sys.stdout.write((versions() if word == "--version" else usage()) + "\n")
        return
    if word not in COMMANDS:
        sys.exit(f"there is no command '{word}'\n{usage()}")
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    os.environ.setdefault("WANDB_QUIET", "true")  # a run ends with its own table
    module = import_module(COMMANDS[word][0])  # which sets up logging for itself, if it comes first
    logging.basicConfig(format="%(message)s", level=logging.INFO, handlers=[Messages()])
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    status = module.main(arguments if module.__name__ == EXPERIMENT else arguments[1:])
    if status is not None:
        sys.exit(status)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; errors are explained, unless a program gave the arguments."""
    if args is not None:
        return run(list(args))
    with explained_errors():
        run(sys.argv[1:])
