"""A study on disk: one record for each cell, and the tables made of them."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from benchmarks.reproduce import worker
from benchmarks.reproduce.cells import WITHOUT_TRAINING, Cell, Part
from benchmarks.reproduce.hardware import hardware
from benchmarks.reproduce.neighbour import trivial_neighbour
from benchmarks.reproduce.table import Found, markdown

RECIPES = Path("benchmarks/recipes")
FOR_A_CPU = Path("experiments")
"""Where the recipes for a CPU lie: they are experiments for anyone."""

START, END = "<!-- by benchmarks.reproduce, from here -->", "<!-- to here -->"
"""Lines of a page between which the tables stand."""


class Study:
    """Cells that were run, in a folder.

    Args:
        output: the folder; what an earlier call with the same recipes left there is kept.
        recipes: `cpu`, `gpu` or `toy`.
        roots: folder of each data set.
        page: a Markdown file to show the tables in, too, in place of those that it has.
    """

    def __init__(
        self, output: Path, recipes: str, roots: Mapping[str, str], page: Path | None
    ) -> None:
        self.output, self.recipes, self.roots, self.page = output, recipes, roots, page
        self.folder = output / recipes
        self.neighbours = {
            Part(*file.stem.split("-")): json.loads(file.read_text(encoding="utf-8"))
            for file in sorted((self.folder / "neighbours").glob("*.json"))
        }
        self.found: dict[Cell, Found] = {}
        for record in sorted((self.folder / "records").glob("*.json")):
            kept = json.loads(record.read_text(encoding="utf-8"))
            method, part, seed = kept["cell"]
            self.found[Cell(method, Part(*part), seed)] = kept

    def is_done(self, cell: Cell) -> bool:
        """Whether a cell has its numbers, by today's recipe; one that failed is tried again."""
        known = self.found.get(cell, {})
        return "metrics" in known and known["recipe"] == self.recipe(cell.method).read_text()

    def run(self, cell: Cell, seconds: float) -> None:
        """Run a cell, or what an earlier call left of it, in so many seconds."""
        told = self._told(cell, seconds)
        folder = self.folder / "runs" / cell.name
        again = "metrics" in self.found.get(cell, {})  # of another recipe
        own = [
            f"--data.root={self.roots[cell.part.data]}",
            f"--run_dir={folder}",
            f"--overwrite={again}",
            "--trainer.logger=false",
            "--trainer.callbacks+=benchmarks.reproduce.utilisation.CountFlops",
        ]
        came = worker.run([*told, *own], folder)
        self.found[cell] = came | {
            "cell": cell,
            "recipe": self.recipe(cell.method).read_text(),
            "command": f"lightning {shlex.join(told)} --data.root ...",
            "hardware": hardware(),
        }
        _write(self._record(cell), json.dumps(self.found[cell], indent=2))

    def compare(self, part: Part) -> None:
        """Find out what the trivial neighbour scores on a part of the data."""
        file = self.folder / "neighbours" / f"{part.data}-{part.name}.json"
        if part not in self.neighbours:
            self.neighbours[part] = trivial_neighbour(part, self.roots[part.data])
            _write(file, json.dumps(self.neighbours[part]))

    def write(self) -> str:
        """Write results.json, results.md and the page; the tables."""
        _write(self.output / "results.json", json.dumps(list(self.found.values()), indent=2))
        text = markdown(self.found, self.neighbours)
        _write(self.output / "results.md", text)
        if self.page:
            _write(self.page, _inserted(text, self.page))
        return text

    def _told(self, cell: Cell, seconds: float) -> list[str]:
        """What `lightning` is told about a cell, but for what depends on the machine."""
        told = ["fit", "--config", str(self.recipe(cell.method)), *cell.part.options]
        told += ["--seed_everything", str(cell.seed)] if cell.seed else []
        timed = cell.method not in WITHOUT_TRAINING
        return [*told, "--time", f"{max(1, round(seconds))}s"] if timed else told

    def recipe(self, method: str) -> Path:
        """The file that says how a method is run."""
        if self.recipes == "cpu":
            return FOR_A_CPU / f"{method}_cpu.yaml"
        return RECIPES / self.recipes / f"{method}.yaml"

    def _record(self, cell: Cell) -> Path:
        return self.folder / "records" / f"{cell.name}.json"


def _inserted(text: str, page: Path) -> str:
    """A page with the tables in place of those that it has, or at its end."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    before, _, rest = old.partition(START)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{START}\n\n{text}\n\n{END}{after}".lstrip() + "\n" * (not after)


def _write(file: Path, text: str) -> None:
    """Write a text whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text.rstrip() + "\n", encoding="utf-8")
    partial.replace(file)
