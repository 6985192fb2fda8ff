"""``lightning categories --config EXPERIMENT.yaml``: the names of its data set's categories.

One a line, for scripts that start a run for each; any option of ``lightning fit`` may follow.
"""

import contextlib
import io
import sys
from collections.abc import Sequence

import yaml
from lightning.pytorch.cli import instantiate_class

from lightning_ad.commands import experiment_cli


def categories_of(arguments: Sequence[str]) -> list[str]:
    """The categories that lie at the root of an experiment's data set, whichever it chooses."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            experiment_cli.main(["fit", *arguments, "--print_config"])
    except SystemExit as end:
        if end.code:
            raise
    data = yaml.safe_load(text.getvalue())["data"]
    data["init_args"]["category"] = "all"
    return instantiate_class((), data).categories


def main(arguments: Sequence[str]) -> None:
    """Run ``lightning categories``."""
    sys.stdout.writelines(f"{category}\n" for category in categories_of(arguments))
