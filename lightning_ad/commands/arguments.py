"""Arguments as they are typed, before a parser sees them: files that are named, and what they say.

A final checkpoint brings its own configuration, and a configuration's folder and categories belong
to its own data set alone.
"""

import itertools
import re
from pathlib import Path
from typing import Any

import yaml

from data_modules.problems import DataError
from data_modules.reading.texts import read_yaml
from lightning_ad.detector.checkpoint import read_checkpoint
from lightning_ad.detector.trust import trusted_config

CONFIG = ("-c", "--config")
TRUST = "--trust"
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

    Raises SystemExit with the name of a configuration that holds no settings.
    """
    names = values_of(arguments, "--data")
    replaced = {}
    for value in (argument.rpartition("=")[2] for argument in arguments):
        if value.endswith((".yaml", ".yml")) and Path(value).is_file():
            _content_of(Path(value))  # also of a part, such as --model FILE
    for number, value in enumerate(values_of(arguments, *CONFIG)):
        if Path(value).is_file():  # else the parser says so
            settings = _settings_in(Path(value))
            if _forget_other_data(settings, names):
                replaced[value] = _write(settings, folder / f"{number}-{Path(value).name}")
    return [_with_value_replaced(argument, replaced) for argument in arguments]


def with_own_config(arguments: list[str], folder: Path) -> tuple[list[str], dict[str, Any] | None]:
    """Let a checkpoint that is named without a configuration bring its own; also its content.

    Packages named by ``--trust`` may be part of it, see `lightning_ad.detector.trust`.
    """
    arguments, trust = _without_trust(arguments)
    paths = values_of(arguments, "--ckpt_path")
    named = any(re.match(r"(-c|--config|--model)(=|$)", argument) for argument in arguments)
    if arguments[:1] not in (["validate"], ["test"], ["predict"]) or named or not paths:
        return arguments, None
    path = Path(paths[-1])
    checkpoint = read_checkpoint(path)
    if "config" not in checkpoint:
        raise SystemExit(OF_A_PHASE.format(path))
    settings = trusted_config(checkpoint["config"], path, trust)
    settings["data"].get("init_args", {}).pop("cache_dir", None)  # another's folder to write to
    settings["trainer"]["logger"] = False  # a look at a run is no run
    _forget_other_data(settings, values_of(arguments, "--data"))
    config = _write(settings, folder / "checkpoint.yaml")
    run_dir = path.resolve().parent
    return [arguments[0], f"--config={config}", f"--run_dir={run_dir}", *arguments[1:]], checkpoint


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


def _settings_in(file: Path) -> dict[str, Any]:
    settings = _content_of(file)
    if not isinstance(settings, dict):
        raise SystemExit(f"{file} holds no settings: expected lines such as 'seed_everything: 0'")
    return settings


def _forget_other_data(settings: dict[str, Any], names: list[str]) -> bool:
    """Drop where another data set lies and what is chosen of it; whether there was any."""
    data = settings.get("data")
    if not names or not isinstance(data, dict) or "class_path" not in data:
        return False
    if data["class_path"].split(".")[-1] == names[-1].split(".")[-1]:
        return False
    for name in ("root", "category"):
        data.get("init_args", {}).pop(name, None)
    return True


def _write(settings: dict[str, Any], file: Path) -> str:
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return str(file)


def _with_value_replaced(argument: str, replaced: dict[str, str]) -> str:
    option, equals, value = argument.partition("=")
    if equals and option in CONFIG:
        return f"{option}={replaced.get(value, value)}"
    return replaced.get(argument, argument)
