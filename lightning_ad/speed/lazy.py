"""Importing a package quickly: what it offers is imported when it is first named."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported_when_named(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's ``__getattr__``, which finds each name in its home, a module below it."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find
