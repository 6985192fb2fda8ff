"""A W&B sweep file, read for Optuna: its search space, its search method, its command line.

The file stays what W&B takes: its own functions turn ranges into Optuna's distributions and values
into the words of a command, so a trial here is a trial there.
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.sdk.sweeps.scheduler.optuna import sweep_parameter_to_distribution

EXAMPLE = "see experiments/sweeps/ddad_guidance.yaml"


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
            content = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise SweepError(f"{file} is no readable YAML file: {error}") from error
        keys = ("method", "metric", "parameters", "command")
        missing = [key for key in keys if not isinstance(content, dict) or not content.get(key)]
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
        sweep._check(file, allow_test_labels)
        return sweep

    def _check(self, file: Path, allow_test_labels: bool) -> None:
        if self.method not in SAMPLERS:
            raise SweepError(f"{file}: method must be one of {', '.join(SAMPLERS)}: {self.method}")
        if self.goal not in ("minimize", "maximize"):
            raise SweepError(f"{file}: metric.goal must be minimize or maximize, not {self.goal}")
        if not self.metric.startswith(("objective/", "test/")):
            raise SweepError(
                f"{file}: metric.name must begin with objective/ or test/, not '{self.metric}': "
                "objective/image_auroc needs no labels"
            )
        if self.metric.startswith("test/") and not allow_test_labels:
            raise SweepError(
                f"{file} chooses settings by {self.metric}, that is on the labels of the test set, "
                "and its best value would no longer be a fair result: use "
                "objective/image_auroc, or ask for this with --allow_test_labels"
            )

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
        named = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
        macros = {f"${{{name}}}": parts for name, parts in named.items() if name != "args_dict"}
        macros |= {"${env}": ["/usr/bin/env"], "${interpreter}": ["python"]}
        parts = create_sweep_command(list(self.command))  # fills in ${envvar:...}
        return [word for part in parts for word in macros.get(part, [part])] + list(more)


def decoded(params: dict[str, Any]) -> dict[str, Any]:
    """A trial's settings as they stand in the file."""
    return {k: json.loads(v) if isinstance(v, str) else v for k, v in params.items()}


def _distribution(name: str, parameter: dict[str, Any]) -> BaseDistribution:
    choices = parameter.get("values", [parameter["value"]] if "value" in parameter else None)
    if choices is not None:
        return CategoricalDistribution([json.dumps(choice) for choice in choices])
    try:
        return sweep_parameter_to_distribution(parameter)
    except (KeyError, ValueError) as error:
        raise SweepError(f"parameter {name} needs value, values, or min and max") from error


SAMPLERS: dict[str, type[RandomSampler] | type[TPESampler]] = {
    "grid": RandomSampler,  # has nothing to choose, see `Sweep.grid`
    "random": RandomSampler,
    "bayes": TPESampler,
}
"""W&B's names of the search methods."""
