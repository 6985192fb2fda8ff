"""Experiment files say only what they decide, and lead to the settings that are on record."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ad.cli import main
from tests.shrunk import EXPERIMENTS as EXPERIMENT_OF
from tests.shrunk import REPOSITORY

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))  # published/ is complete


RECORD: dict[str, dict[str, Any]] = json.loads(
    (REPOSITORY / "tests/golden/experiments.json").read_text()
)


@cache
def resolved(file: Path, *more: str) -> dict[str, Any]:
    """The whole configuration that a file leads to."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        for name in re.findall(r"oc\.env:(\w+)", file.read_text()):
            patch.delenv(name, raising=False)  # where this machine's data lies
        with pytest.raises(SystemExit):
            main(["fit", f"--config={file}", *more, "--print_config"])
    return yaml.safe_load(printed.getvalue())


def options(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting by its name on the command line; of other packages' only what is not nothing."""
    for key, value in tree.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}".lstrip(".")
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            value = dict(enumerate(value))
        if isinstance(value, dict) and value:
            yield from options(value, name)
        elif value or not _is_foreign(name):
            yield name, value


def _is_foreign(name: str) -> bool:
    """Whether an option is another package's, whose next version may have others."""
    return name.startswith("trainer.") or "optimizer." in name


@pytest.mark.parametrize("name", [name for name in RECORD if name != "all"])
def test_settings_are_those_on_record(name):
    """Nothing that was recorded, no trainer's option besides, has another value than then.

    Where that is meant, change the value in tests/golden/experiments.json.
    """
    recorded = RECORD["all"] | RECORD[name]
    today = dict(options(resolved(REPOSITORY / "experiments" / name)))
    names = recorded.keys() | {name for name in today if _is_foreign(name)}
    changed = {name: (recorded.get(name), today.get(name)) for name in names}
    assert {name: pair for name, pair in changed.items() if pair[0] != pair[1]} == {}


@pytest.mark.parametrize("name", EXPERIMENT_OF.values(), ids=EXPERIMENT_OF)
def test_every_method_takes_the_options_of_a_detector(name):
    given = {"standardize": True, "top_share": 0.0, "folds": None, "false_alarm_rate": 0.02}
    file = REPOSITORY / f"experiments/{name}.yaml"
    tree = resolved(file, *(f"--model.{key}={json.dumps(value)}" for key, value in given.items()))
    assert given.items() <= tree["model"]["init_args"].items()


def classes_of(tree: dict[str, Any]) -> dict[str, Any]:
    """A configuration's class paths, nothing else."""
    inner = {key: classes_of(value) for key, value in tree.items() if isinstance(value, dict)}
    own = {key: value for key, value in tree.items() if key == "class_path"}
    return own | {key: value for key, value in inner.items() if value}


def leaves(node: yaml.Node, tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple]:
    """Path, value and line of each setting."""
    if isinstance(node, yaml.MappingNode):
        for (key, value), inner in zip(node.value, tree.values(), strict=True):
            yield from leaves(value, inner, (*path, key.value))
    else:
        yield path, tree, node.start_mark.line


def at(tree: Any, path: tuple[str, ...]) -> Any:
    """The value at a path, `...` where there is none."""
    for key in path:
        tree = tree.get(key, ...) if isinstance(tree, dict) else ...
    return tree


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_no_setting_restates_a_default_unless_a_paper_gives_it(file, tmp_path):
    text = file.read_text()
    config, lines = yaml.safe_load(text), text.splitlines()
    bare = tmp_path / "bare.yaml"
    bare.write_text(yaml.safe_dump(classes_of(config) | {"run_dir": "runs/bare"}))
    found, defaults = resolved(file), resolved(bare)
    restated = [
        ".".join(path)
        for path, value, line in leaves(yaml.compose(text), config)
        if path[-1] != "class_path" and "${" not in str(value)
        if at(found, path) == at(defaults, path) != ...
        if "paper" not in lines[line].partition("#")[2]
    ]
    assert not restated
