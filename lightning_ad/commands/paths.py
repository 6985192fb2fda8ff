"""Paths as they are typed."""

from pathlib import Path


def path(text: str) -> Path:
    """A path in which ``~`` is the user's folder: shells leave it alone in ``--option=~/x``."""
    return Path(text).expanduser()
