"""Arguments as they are typed, before a parser sees them: files that are named, and what they say.

A final checkpoint brings its own configuration, and a configuration's folder and categories belong
to its own data set alone.
"""

import itertools
import json
import re
from argparse import ArgumentError
from inspect import signature
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

import data_modules
from data_modules import AnomalyDataModule
from data_modules.problems import DataError
from data_modules.reading.texts import read_text, read_yaml
from lightning_ad.detector.checkpoint import cannot_be_built, read_checkpoint
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.trust import trusted_config
from lightning_ad.experiment.origin import AS_BEFORE

CONFIG = ("-c", "--config")
TRUST = "--trust"
NAMES = (("run_dir",), *(("data", "init_args", name) for name in ("root", "category", "cache_dir")))
"""Settings that are names, whatever they look like."""
CATEGORY = ("--data.category", "--data.init_args.category")
OF_A_PHASE = (
    "{} holds the weights of a phase, without calibration and configuration: give the "
    "final.ckpt that 'lightning fit' ends with"
)


def values_of(arguments: list[str], *options: str) -> list[str]:
    """What the command line gives for an option, as ``--option value`` or ``--option=value``."""
    apart = [value for name, value in itertools.pairwise(arguments) if name in options]
    marks = tuple(f"{option}=" for option in options)
    return apart + [a.partition("=")[2] for a in arguments if a.startswith(marks)]


def with_files_read(arguments: list[str], folder: Path) -> list[str]:
    """The arguments, with configurations in ``folder`` that say no more than they may.

    Names stay as they are written: 01 and on are categories, not a number and a truth.

    Raises SystemExit with the name of a configuration that holds no settings.
    """
    others = values_of(arguments, "--data")
    replaced = {}
    for value in (argument.rpartition("=")[2] for argument in arguments):
        if value.endswith((".yaml", ".yml")) and Path(value).is_file():
            _content_of(Path(value))  # also of a part, such as --model FILE
    for number, value in enumerate(values_of(arguments, *CONFIG)):
        file = Path(value).expanduser()
        if file.is_file():  # else the parser says so
            settings, changed = _settings_in(file)
            if _forget_other_data(settings, others) or changed or str(file) != value:
                replaced[value] = _write(settings, folder / f"{number}-{file.name}")
    before = ["", *arguments]
    arguments = [_with_value_replaced(argument, replaced) for argument in arguments]
    return [_with_names_quoted(*pair) for pair in zip(before, arguments, strict=False)]


def with_own_config(arguments: list[str], folder: Path) -> tuple[list[str], dict[str, Any] | None]:
    """Let a checkpoint that is named without a configuration bring its own; also its content.

    Packages named by ``--trust`` may be part of it, see `lightning_ad.detector.trust`.
    """
    arguments, trust = _without_trust(arguments)
    paths = values_of(arguments, "--ckpt_path")
    named = any(re.match(r"(-c|--config|--model)(=|$)", argument) for argument in arguments)
    if arguments[:1] not in (["validate"], ["test"], ["predict"]) or named or not paths:
        return arguments, None
    path = Path(paths[-1]).expanduser()
    checkpoint = read_checkpoint(path)
    if "config" not in checkpoint:
        raise SystemExit(OF_A_PHASE.format(path))
    settings = trusted_config(checkpoint["config"], path, trust)
    data = settings["data"].setdefault("init_args", {})
    data.pop("cache_dir", None)  # another's folder to write to
    data.setdefault("fit", AS_BEFORE)  # whatever the data set takes now
    roi = settings["data"].get("init_args", {}).get("roi")
    if roi and not Path(roi).expanduser().exists():
        settings["data"]["init_args"].pop("roi")  # the checkpoint holds what it was
    settings["trainer"]["logger"] = False  # a look at a run is no run
    try:
        _known().parse_object({name: settings[name] for name in ("model", "data")})
    except ArgumentError as error:
        raise cannot_be_built(path, checkpoint, error) from error
    _forget_other_data(settings, values_of(arguments, "--data"))
    config = _write(settings, folder / "checkpoint.yaml")
    run_dir = path.resolve().parent
    return [arguments[0], f"--config={config}", f"--run_dir={run_dir}", *arguments[1:]], checkpoint


def _known() -> ArgumentParser:
    """Takes the models and data sets of this version."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AnomalyDetector, "model")
    parser.add_subclass_arguments(AnomalyDataModule, "data")
    return parser


def _without_trust(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The arguments without ``--trust``, where there may be one, and the packages it names."""
    if arguments[:1] not in (["validate"], ["test"], ["predict"]):
        return arguments, []
    packages = values_of(arguments, TRUST)
    apart = [i for i, argument in enumerate(arguments) if argument == TRUST]
    gone = {*apart, *(i + 1 for i in apart)}
    rest = [argument for i, argument in enumerate(arguments) if i not in gone]
    return [argument for argument in rest if not argument.startswith(f"{TRUST}=")], packages


def _content_of(file: Path) -> Any:
    try:
        return read_yaml(file)
    except DataError as error:
        raise SystemExit(str(error)) from error


def _settings_in(file: Path) -> tuple[dict[str, Any], bool]:
    """What a YAML file holds, names as they are written, and whether that makes a difference."""
    settings = _content_of(file)
    node = yaml.compose(read_text(file))
    if not isinstance(settings, dict):
        raise SystemExit(f"{file} holds no settings: expected lines such as 'seed_everything: 0'")
    changed = False
    for *path, name in NAMES:
        inner, written = settings, node
        for key in path:
            inner, written = _at(inner, key), _below(written, key)
        names = _as_written(_below(written, name))
        if names and inner[name] != names:
            inner[name], changed = names, True
    return settings, changed


def _at(tree: Any, key: str) -> Any:
    return tree.get(key) if isinstance(tree, dict) else None


def _below(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _as_written(node: yaml.Node | None) -> str | list[str] | None:
    """The text of a name or of a list of names; None where there is neither."""
    if isinstance(node, yaml.SequenceNode):
        return [_Name(each.value) for each in node.value]
    return _Name(node.value) if isinstance(node, yaml.ScalarNode) else None


def _with_names_quoted(option: str, argument: str) -> str:
    """A list of categories, after its option or after an equals sign, as JSON."""
    name, equals, listed = argument.rpartition("=") if "=" in argument else (option, "", argument)
    if name not in CATEGORY or not listed.startswith("["):
        return argument
    return f"{name}=" * bool(equals) + json.dumps(_as_written(yaml.compose(listed)))


def _forget_other_data(settings: dict[str, Any], names: list[str]) -> bool:
    """Drop where another data set lies and what is chosen of it; whether there was any.

    The one in use keeps the defaults that it has of its own: the other would lend it its ones.
    """
    data = settings.get("data")
    if not names or not isinstance(data, dict) or "class_path" not in data:
        return False
    if data["class_path"].split(".")[-1] == names[-1].split(".")[-1]:
        return False
    chosen = data.setdefault("init_args", {})
    for name in ("root", "category"):
        chosen.pop(name, None)
    used = getattr(data_modules, names[-1].split(".")[-1], AnomalyDataModule)
    own, common = signature(used).parameters, signature(AnomalyDataModule).parameters
    for name in own.keys() & common.keys() - {"root", "category"}:
        if own[name].default != common[name].default:
            chosen.setdefault(name, own[name].default)
    return True


class _Name(str):
    """A string that YAML is to quote, as what reads it may take other strings for numbers."""


class _Dumper(yaml.SafeDumper):
    """Quotes names."""


_Dumper.add_representer(
    _Name, lambda d, name: d.represent_scalar("tag:yaml.org,2002:str", name, '"')
)


def _write(settings: dict[str, Any], file: Path) -> str:
    file.write_text(yaml.dump(settings, Dumper=_Dumper, sort_keys=False), encoding="utf-8")
    return str(file)


def _with_value_replaced(argument: str, replaced: dict[str, str]) -> str:
    option, equals, value = argument.partition("=")
    if equals and option in CONFIG:
        return f"{option}={replaced.get(value, value)}"
    return replaced.get(argument, argument)
