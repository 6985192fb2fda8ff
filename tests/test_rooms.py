"""Rooms import downwards only and in no circle: each can be read with what lies below it alone."""

import ast
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.shrunk import REPOSITORY

FLOORS = (
    ("maths", "speed"),
    ("networks", "metrics", "reports"),
    ("detector",),
    ("methods", "callbacks", "published"),
    ("experiment", "deployment"),
    ("commands",),
    ("cli",),
    ("__main__", "__init__"),
)
"""The rooms of lightning_ad from the lowest floor to the highest; on one floor, no circle."""

PACKAGES = ("data_modules", "lightning_ad")
Graph = dict[str, set[str]]


def modules(folder: Path) -> dict[str, Path]:
    """All modules of the packages in a folder, by their full names."""
    files = [file for package in PACKAGES for file in (folder / package).rglob("*.py")]
    names = [".".join(file.relative_to(folder).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imported(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The known modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write the whole name of what is imported"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in whole]
        yield from (name for name in names if name in known)


def graph(folder: Path) -> Graph:
    """What each module of lightning_ad and data_modules imports of them."""
    known = modules(folder)
    return {name: set(imported(file, known)) - {name} for name, file in known.items()}


def room(module: str) -> str:
    """The folder or file, right below lightning_ad, that a module lies in; else its package."""
    package, _, inner = module.partition(".")
    return (inner.partition(".")[0] or "__init__") if package == "lightning_ad" else package


def upwards(modules: Graph) -> list[str]:
    """The imports that lead from a room to one above it, or out of data_modules."""
    floor = {name: number for number, rooms in enumerate(FLOORS) for name in rooms}
    floor["data_modules"] = -1
    return [
        f"{importer} -> {name}"
        for importer, names in modules.items()
        for name in names
        if floor[room(name)] > floor[room(importer)]
    ]


def circle(modules: Graph) -> list[str]:
    """Modules, or else rooms, that import each other in a circle; empty if none do."""
    rooms: Graph = {}
    for importer, names in modules.items():
        rooms.setdefault(room(importer), set()).update(map(room, names))
    for name, others in rooms.items():
        others.discard(name)
    try:
        for each in (modules, rooms):
            TopologicalSorter(each).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture
def copied(tmp_path):
    for package in PACKAGES:
        shutil.copytree(REPOSITORY / package, tmp_path / package)
    return tmp_path


def plant(folder: Path, module: str, line: str) -> None:
    file = folder / module
    file.write_text(f"{file.read_text()}\n\ndef planted():\n    {line}\n")


def test_rooms_import_downwards_in_no_circle():
    assert upwards(graph(REPOSITORY)) == []
    assert circle(graph(REPOSITORY)) == []


def test_an_import_upwards_is_found(copied):
    plant(copied, "lightning_ad/maths/maps.py", "from lightning_ad.detector import detector")
    plant(copied, "data_modules/records.py", "import lightning_ad.maths.maps")
    assert sorted(upwards(graph(copied))) == [
        "data_modules.records -> lightning_ad.maths.maps",
        "lightning_ad.maths.maps -> lightning_ad.detector.detector",
    ]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("detector/memory.py", "from lightning_ad.detector.detector import Detection"),
        ("methods/texture.py", "from lightning_ad.published.drifting import DriftingExtractor"),
    ],
)
def test_a_circle_of_files_or_of_rooms_is_found(copied, module, line):
    plant(copied, f"lightning_ad/{module}", line)
    assert circle(graph(copied))


def test_the_hall_stays_empty():
    files = [path for path in (REPOSITORY / "lightning_ad").iterdir() if path.is_file()]
    assert len(files) <= 5, "a new file belongs in a room"
