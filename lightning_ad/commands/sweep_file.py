"""A W&B sweep file, read for Optuna: its search space, its search method, its command line.

The file stays what W&B takes, and a trial here is a trial there: ranges mean the same, and a
command's words are filled in as W&B's agent does it. What Optuna or an experiment does not know is
refused by name.
"""

import itertools
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from data_modules.problems import DataError
from data_modules.reading.texts import read_yaml
from lightning_ad.metrics.detection import IMAGE_METRICS, PIXEL_METRICS

EXAMPLE = "see experiments/sweeps/ddad_guidance.yaml"

SAMPLERS: dict[str, type[RandomSampler] | type[TPESampler]] = {
    "grid": RandomSampler,  # has nothing to choose, see `Sweep.grid`
    "random": RandomSampler,
    "bayes": TPESampler,
}
"""W&B's names of the search methods."""

METRICS = IMAGE_METRICS + PIXEL_METRICS

MACROS = ("${env}", "${interpreter}", "${args}")
"""What may stand in a command as a word of its own, beside ``${envvar:NAME}`` in any word."""


class SweepError(Exception):
    """A sweep that cannot be run, and what to change."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file: what varies, how it is searched, and the command of a trial."""

    method: str
    metric: str
    goal: str
    parameters: dict[str, dict[str, Any]]
    command: list[str]

    @classmethod
    def read(cls, file: Path, allow_test_labels: bool = False) -> "Sweep":
        """Read and check a sweep file; SweepError names what is missing or not allowed."""
        try:
            content = read_yaml(file)
        except DataError as error:
            raise SweepError(str(error)) from error
        content = content if isinstance(content, dict) else {}
        kinds = {"method": str, "metric": dict, "parameters": dict, "command": list}
        given = {key: content.get(key) for key in kinds}
        missing = [k for k, kind in kinds.items() if not isinstance(given[k], kind) or not given[k]]
        if missing:
            raise SweepError(f"{file} lacks {', '.join(missing)}: {EXAMPLE}")
        metric = content["metric"]
        sweep = cls(
            content["method"],
            metric.get("name", ""),
            metric.get("goal", "minimize"),
            content["parameters"],
            [str(part) for part in content["command"]],
        )
        try:
            sweep._check()
            _check_metric(sweep.metric, allow_test_labels)
        except SweepError as error:
            raise SweepError(f"{file}: {error}") from error
        return sweep

    def _check(self) -> None:
        if self.method not in SAMPLERS:
            raise SweepError(f"method must be one of {', '.join(SAMPLERS)}: {self.method}")
        if self.goal not in ("minimize", "maximize"):
            raise SweepError(f"metric.goal must be minimize or maximize, not {self.goal}")
        words = [word for part in self.command for word in re.findall(r"\$\{\w+\}", part)]
        unknown = [word for word in words if word not in MACROS]
        if unknown:
            known = ", ".join((*MACROS, "${envvar:NAME}"))
            raise SweepError(f"command has {', '.join(unknown)}, known are {known}")
        _ = self.space, self.grid()

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """What each parameter may be; choices are JSON, so that they may be lists."""
        return {name: _distribution(name, each) for name, each in self.parameters.items()}

    def sampler(self) -> BaseSampler:
        """Optuna's counterpart of W&B's search method."""
        return SAMPLERS[self.method](seed=0)

    def grid(self) -> list[dict[str, Any]] | None:
        """All points in order, if the method is ``grid``."""
        if self.method != "grid":
            return None
        choices = []
        for name, each in self.space.items():
            if not isinstance(each, CategoricalDistribution):
                raise SweepError(f"parameter {name}: a grid needs values, not a range")
            choices.append(each.choices)
        return [dict(zip(self.space, point, strict=True)) for point in itertools.product(*choices)]

    def trial_command(self, values: dict[str, Any], *more: str) -> list[str]:
        """The command line that W&B's agent would run, followed by ``more``."""
        options = [f"--{name}={value}" for name, value in values.items()]
        words = dict(zip(MACROS, (["/usr/bin/env"], ["python"], options), strict=True))
        parts = [re.sub(r"\$\{envvar:(\w+)\}", _variable, part) for part in self.command]
        return [word for part in parts for word in words.get(part, [part])] + list(more)


def _check_metric(name: str, allow_test_labels: bool) -> None:
    if not name.startswith(("objective/", "test/")):
        raise SweepError(
            f"metric.name must begin with objective/ or test/, not '{name}': "
            "objective/image_auroc needs no labels"
        )
    section, _, metric = name.rpartition("/")
    if metric not in METRICS:
        known = ", ".join(f"{section}/{each}" for each in METRICS)
        raise SweepError(f"a run has no {name}, it has: {known} (metric.name)")
    if name.startswith("test/") and not allow_test_labels:
        raise SweepError(
            f"metric.name is {name}: settings chosen on the labels of the test set make its best "
            "value no fair result; use objective/image_auroc, or ask for this with "
            "--allow_test_labels"
        )


def _variable(found: re.Match[str]) -> str:
    """The value of an environment variable; its name, as W&B has it, where it is not set."""
    return os.environ.get(found[1], found[1])


def decoded(params: dict[str, Any]) -> dict[str, Any]:
    """A trial's settings as they stand in the file."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in params.items()}


def _distribution(name: str, parameter: dict[str, Any]) -> BaseDistribution:
    parameter = parameter if isinstance(parameter, dict) else {}
    choices = parameter.get("values", [parameter["value"]] if "value" in parameter else None)
    if choices is not None:
        return CategoricalDistribution([json.dumps(choice) for choice in choices])
    try:
        return _range(**{"q": 1} | parameter)
    except (TypeError, ValueError) as error:
        raise SweepError(
            f"parameter {name} needs value, values, or min and max, with a distribution among "
            f"uniform, int_uniform, q_uniform, log_uniform_values ({error})"
        ) from error


def _range(min: Any, max: Any, q: Any, distribution: str | None = None) -> BaseDistribution:
    """Optuna's counterpart of a range; TypeError or ValueError where there is none."""
    whole = isinstance(min, int) and isinstance(max, int)
    match distribution or ("int_uniform" if whole else "uniform"):
        case "int_uniform" if whole:
            return IntDistribution(min, max)
        case "uniform":
            return FloatDistribution(min, max)
        case "log_uniform_values":
            return FloatDistribution(min, max, log=True)
        case "q_uniform":
            stepped = IntDistribution if whole and isinstance(q, int) else FloatDistribution
            return stepped(min, max, step=q)
    raise ValueError(f"not {distribution}")
