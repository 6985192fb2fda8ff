"""What of a checkpoint's configuration may be built: data from elsewhere must run nothing.

A final checkpoint says which classes it is made of, and jsonargparse calls what it is told to, be
it ``subprocess.Popen``. Therefore only the sections that are needed are taken, every name in them
that would be imported must lead to a class of ours, to one of torch's optimizers, or into a package
that the user trusts by name, and nothing is interpolated.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch.optim import Optimizer

from data_modules.problems import DataError
from data_modules.reading.texts import parse_yaml

SECTIONS = ("seed_everything", "model", "data", "evaluation")
"""What a final checkpoint carries of a run's configuration, beside the trainer's precision."""

OURS = (
    "lightning_ad.methods",
    "lightning_ad.published",
    "lightning_ad.networks",
    "lightning_ad.detector.tiled",
    "data_modules",
)
OPTIMIZERS = "torch.optim"

PLAIN = (str, int, float, bool, type(None), Path, Any)


class UntrustedError(ValueError):
    """A checkpoint names what is not to be run."""


def trusted_config(text: str, source: Path, trust: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration that a checkpoint holds as YAML, if nothing foreign runs through it.

    Args:
        text: the YAML.
        source: the checkpoint, to be named in errors.
        trust: packages whose classes and functions may be named, too.

    Raises:
        UntrustedError: in one line, for any other name, for ``${...}``, and for what is no
            configuration.
    """
    config = _parsed(text, source)
    kept = {name: config[name] for name in SECTIONS if name in config}
    precision = (config.get("trainer") or {}).get("precision")
    gate = _Gate(source, tuple(trust))
    for name in ("model", "data"):
        gate.check_class(kept[name], name)
    for name in ("seed_everything", "evaluation"):
        gate.check(kept.get(name), name, Any)
    gate.check(precision, "trainer.precision", Any)
    return {**kept, "trainer": {"precision": precision}}


def _parsed(text: str, source: Path) -> dict[str, Any]:
    try:
        config = parse_yaml(text, f"the configuration in {source}")
    except DataError as error:
        raise UntrustedError(str(error)) from error
    if not isinstance(config, dict) or not all(_names_class(config, s) for s in ("model", "data")):
        raise UntrustedError(f"{source} holds no configuration of a model and its data")
    return config


def _names_class(config: dict[str, Any], section: str) -> bool:
    return isinstance(config.get(section), dict) and "class_path" in config[section]


class _Gate:
    def __init__(self, source: Path, trust: tuple[str, ...]) -> None:
        self.source, self.trust = source, trust

    def check(self, value: Any, key: str, hint: Any) -> None:
        """Refuse what a value would run where a parameter of type ``hint`` takes it."""
        if isinstance(value, str):
            if "${" in value:
                raise UntrustedError(
                    f"{self.source} holds {value!r} in {key}: a checkpoint's settings are final, "
                    "nothing in them is interpolated"
                )
            if not _is_plain(hint):
                self._object(value, key)
        elif isinstance(value, dict) and "class_path" in value:
            self.check_class(value, key)
        elif isinstance(value, dict | list):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            for name, part in inner:
                self.check(part, f"{key}.{name}", hint)

    def check_class(self, spec: dict[str, Any], key: str) -> None:
        """Refuse a class that is not trusted, or what its arguments would run."""
        found = self._object(spec["class_path"], f"{key}.class_path")
        hints = _hints(found)
        for group in ("init_args", "dict_kwargs"):
            for name, value in (spec.get(group) or {}).items():
                self.check(value, f"{key}.{name}", hints.get(name, object))

    def _object(self, path: Any, key: str) -> Any:
        """What a name stands for, if it may be used."""
        if isinstance(path, str):
            if any(path == name or path.startswith(f"{name}.") for name in self.trust):
                return _attribute(*path.rpartition(".")[::2])
            for module, name in _homes(path):
                found = _attribute(module, name)
                if _is_ours(found):
                    return found
        raise UntrustedError(
            f"{self.source} names {path!r} in {key}: from a checkpoint only lightning_ad's classes "
            f"and torch's optimizers are built; --trust PACKAGE lets a package through"
        )


def _homes(path: str) -> Iterator[tuple[str, str]]:
    """Modules, and the name in them, that a dotted or a short name may mean."""
    module, _, name = path.rpartition(".")
    if not module:
        yield from ((package, name) for package in (*OURS, OPTIMIZERS))
    elif any(f"{module}.".startswith(f"{package}.") for package in (*OURS, OPTIMIZERS)):
        yield module, name


def _attribute(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        return None


def _is_ours(found: Any) -> bool:
    """Whether something is a class that was written for a configuration to name."""
    if not inspect.isclass(found):
        return False
    if issubclass(found, Optimizer):
        return found.__module__.startswith(f"{OPTIMIZERS}.")
    return any(f"{found.__module__}.".startswith(f"{package}.") for package in OURS)


def _hints(found: Any) -> dict[str, Any]:
    """Types of the parameters of a class, those that its bases take included."""
    hints: dict[str, Any] = {}
    for base in inspect.getmro(found) if inspect.isclass(found) else ():
        try:
            own = get_type_hints(base.__init__)  # type: ignore[misc]
        except (NameError, TypeError, AttributeError):
            own = {}
        hints = {**own, **hints}
    return hints


def _is_plain(hint: Any) -> bool:
    """Whether a parameter of that type takes data only, so that a string stays a string."""
    if hint in PLAIN or hint is Ellipsis:
        return True
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return True
    containers = (list, tuple, set, frozenset, dict, Sequence, Mapping)
    is_union = origin is not None and origin not in containers and _is_union(origin)
    return (is_union or origin in containers) and all(map(_is_plain, inner))


def _is_union(origin: Any) -> bool:
    return getattr(origin, "__name__", "") in ("Union", "UnionType")
