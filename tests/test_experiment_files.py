"""Experiment files say only what they decide: what a class assumes anyway is left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_ad.cli import main
from tests.shrunk import REPOSITORY

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))  # published/ is complete


def resolved(file: Path, capsys) -> dict[str, Any]:
    """The whole configuration that a file leads to."""
    with pytest.raises(SystemExit):
        main(["fit", f"--config={file}", "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


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
def test_no_setting_restates_a_default_unless_a_paper_gives_it(file, tmp_path, capsys):
    text = file.read_text()
    config, lines = yaml.safe_load(text), text.splitlines()
    bare = tmp_path / "bare.yaml"
    bare.write_text(yaml.safe_dump(classes_of(config) | {"run_dir": "runs/bare"}))
    found, defaults = resolved(file, capsys), resolved(bare, capsys)
    restated = [
        ".".join(path)
        for path, value, line in leaves(yaml.compose(text), config)
        if path[-1] != "class_path" and "${" not in str(value)
        if at(found, path) == at(defaults, path) != ...
        if "paper" not in lines[line].partition("#")[2]
    ]
    assert not restated
