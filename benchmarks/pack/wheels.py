"""Which packages a machine lacks that has only a few given ones, and their wheels."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

GIVEN = ("torch", "lightning", "timm", "torchmetrics", "opencv-python-headless", "pip")
LEFT_OUT = (
    "albumentations",  # augmentation and crops, with scipy 41 MB: the recipes use neither
    "optuna",  # sweeps
    "scikit-image",  # SyntheticTextures and one published protocol, with scipy 49 MB
    "wandb",  # 20 MB: runs of the table do not log
)
PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")
PIN = re.compile(r"^([\w.-]+)==(\S+)(?: ; (.+?))?(?: \\)?$", re.MULTILINE)


def missing(repository: Path) -> list[str]:
    """What the project needs beyond what the given packages bring, pinned as in the lock."""
    project = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    needed = _closure(project["project"]["dependencies"], skipped={*GIVEN, *LEFT_OUT})
    pins = _pins(repository / "requirements.lock")
    return [f"{name}=={pins[name]}" for name in sorted(needed - _closure(GIVEN, skipped=set()))]


def download(pinned: Iterable[str], folder: Path) -> None:
    """Fetch wheels; subprocess.CalledProcessError with pip's words if one cannot be had."""
    target = ["--python-version", PYTHON, "--implementation", "cp"]
    for platform in PLATFORMS:
        target += ["--platform", f"{platform}_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", *target, "--dest", str(folder), *pinned]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _closure(requirements: Iterable[str], skipped: set[str]) -> set[str]:
    """Names of the packages that requirements lead to, as those that are installed here say."""
    found: set[str] = set()
    todo = [(Requirement(requirement), "") for requirement in requirements]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in skipped or (
            requirement.marker and not requirement.marker.evaluate(_there(extra))
        ):
            continue
        found.add(name)
        for wanted in ("", *sorted(requirement.extras)):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                todo += [(Requirement(line), wanted) for line in requires(name) or ()]
    return found


def _there(extra: str) -> dict[str, str]:
    """The other machine, as markers of requirements see it."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    python = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    return {**default_environment(), **linux, **python, "extra": extra}


def _pins(lock: Path) -> dict[str, str]:
    return {
        canonicalize_name(name): version
        for name, version, marker in PIN.findall(lock.read_text(encoding="utf-8"))
        if not marker or Requirement(f"x ; {marker}").marker.evaluate(_there(""))
    }
