"""The weights that recipes name by environment variables, cut to the layers in use, in float16."""

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from timm.models import load_state_dict

from benchmarks.pack.problems import PackError
from lightning_ad.networks import FeaturePyramid

VARIABLE = re.compile(r"\$\{oc\.env:(\w+)(?:,([^}]*))?\}$")


@dataclass
class Weights:
    """A file or a folder of weights, which recipes know by an environment variable."""

    variable: str
    source: Path
    keys: set[str] = field(default_factory=set)
    """Those in use; all if empty."""


def named_by(recipes: Path) -> list[Weights]:
    """The weights of a folder of recipes; PackError naming those that are not there."""
    found: dict[str, Weights] = {}
    used_by = defaultdict(set)
    for recipe in sorted(recipes.glob("*.yaml")):
        model = yaml.safe_load(recipe.read_text(encoding="utf-8"))["model"]
        for variable, default, options in _variables(model):
            source = Path(os.environ.get(variable) or default)
            weights = found.setdefault(variable, Weights(variable, source))
            used_by[variable].add(recipe.name)
            if "backbone" in options:
                network = FeaturePyramid(**{**options, "weights": "random"}).network
                weights.keys |= network.get_submodule("model").state_dict().keys()
    if not found:
        raise PackError(f"there are no recipes that name weights in {recipes}")
    lacking = [
        f"  {variable}, of {', '.join(sorted(used_by[variable]))}: there is no {weights.source}"
        for variable, weights in found.items()
        if not weights.source.exists()
    ]
    if lacking:
        lines = "\n".join(lacking)
        raise PackError(f"weights are missing; set each variable to a file or folder:\n{lines}")
    return list(found.values())


def _variables(node: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each leaf `${oc.env:NAME,default}`: its name and default, and the section it stands in."""
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for _, child in children:
        if isinstance(child, dict | list):
            yield from _variables(child)
        elif isinstance(child, str) and (match := VARIABLE.match(child)):
            yield match[1], match[2] or "", node if isinstance(node, dict) else {}


def write(weights: Weights, folder: Path) -> Path:
    """Write weights below ``folder``; the file or folder that the variable is to name there."""
    if weights.source.is_file():
        return _shrink(weights.source, folder / f"{weights.source.stem}.safetensors", weights.keys)
    target = folder / weights.source.name
    target.mkdir()
    for file in weights.source.iterdir():
        if file.suffix == ".safetensors":
            _shrink(file, target / file.name, set())
        elif file.suffix == ".json":
            shutil.copyfile(file, target / file.name)
    return target


def _shrink(source: Path, target: Path, keys: set[str]) -> Path:
    state = load_state_dict(str(source), use_ema=False)
    kept = {name: value for name, value in state.items() if not keys or name in keys}
    halves = {
        name: value.half() if value.dtype == torch.float32 else value
        for name, value in kept.items()
    }
    save_file({name: value.contiguous() for name, value in halves.items()}, str(target))
    return target
