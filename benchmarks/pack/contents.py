"""Puts a pack together: wheels, weights, data, this project, and what starts it there."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.pack import images, weights, wheels
from benchmarks.pack.problems import PackError
from benchmarks.pack.weights import Weights
from data_modules import AnomalyDataModule
from data_modules.reading.store import written_whole

REPOSITORY = Path(__file__).parents[2]
SOURCES = ("lightning_ad", "data_modules", "benchmarks", "tests/fakes.py", "tests/__init__.py")
LAUNCHER = Path(__file__).with_name("run.py")
SHOWN = 5


def pack(
    output: Path,
    data: Mapping[str, AnomalyDataModule],
    named: Sequence[Weights],
    px: int,
    limit: float,
) -> None:
    """Write a pack of at most ``limit`` megabytes.

    Args:
        output: a folder that is not there yet.
        data: data sets, by the name of their folder.
        named: weights that the recipes name.
        px: side of the packed images.
        limit: in megabytes.

    Raises:
        PackError: if it is larger, if a wheel cannot be had, or if ``output`` exists.
    """
    if output.exists():
        raise PackError(f"{output} exists: remove it, or give another --output")
    pinned = wheels.missing(REPOSITORY)
    with written_whole(output) as partial:
        partial.mkdir()
        _say(f"{len(named)} kinds of weights")
        _write_weights(named, partial)
        for name, data_set in data.items():
            _say(f"{len(data_set.records())} images of {name}")
            images.write(data_set, partial / "data" / name, px)
        _say(f"{len(pinned)} wheels")
        _download(pinned, partial / "wheels")
        _copy_sources(partial / "project")
        shutil.copyfile(LAUNCHER, partial / LAUNCHER.name)
        size = _require_small(partial, limit)
    _say(f"{output}: {size / 1e6:.1f} MB; there: python3 {output.name}/{LAUNCHER.name}")


def _write_weights(named: Sequence[Weights], folder: Path) -> None:
    """Write weights, and what the variables that name them are to be there."""
    (folder / "weights").mkdir()
    places = {each.variable: weights.write(each, folder / "weights") for each in named}
    there = {variable: str(place.relative_to(folder)) for variable, place in places.items()}
    (folder / "weights.json").write_text(json.dumps(there, indent=2), encoding="utf-8")


def _download(pinned: Sequence[str], folder: Path) -> None:
    try:
        wheels.download(pinned, folder)
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.strip().splitlines()[-1:])
        raise PackError(f"wheels are missing: {reason}") from error


def _copy_sources(folder: Path) -> None:
    for source in SOURCES:
        target = folder / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / source).is_dir():
            shutil.copytree(
                REPOSITORY / source, target, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copyfile(REPOSITORY / source, target)
    # Runs record the project's version, which Python looks up as if it were installed.
    described = folder / "lightning_ad.dist-info"
    described.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: lightning-ad", f"Version: {version('lightning-ad')}"]
    (described / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _require_small(folder: Path, limit: float) -> int:
    """The size of a folder in bytes; PackError naming its largest parts if over the limit."""
    sizes: Counter[str] = Counter()
    for file in folder.rglob("*"):
        if file.is_file():
            place = file.relative_to(folder)
            part = place.parts[: 3 if place.parts[0] == "data" else 2]
            sizes["/".join(part)] += file.stat().st_size
    if sizes.total() > limit * 1e6:
        largest = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.most_common(SHOWN))
        raise PackError(
            f"the pack would have {sizes.total() / 1e6:.1f} MB, over {limit:g} (--limit); largest "
            f"are {largest}. Choose fewer --data or --categories, or a smaller --px"
        )
    return sizes.total()


def _say(what: str) -> None:
    print(what, flush=True)
