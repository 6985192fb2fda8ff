"""What a folder of results holds, as far as it can be read: a report shows what is there.

A run's folder has the results of its test, ``predictions`` in there those of a prediction. What is
missing or damaged becomes a note of a line, and all the rest is shown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_modules.problems import DataError
from data_modules.reading.texts import read_json
from lightning_ad.reports.predictions_file import FORMAT

EVIDENCE = "report.json"
"""What `callbacks.Report` writes beside predictions.json: curves, normal scores, circumstances."""
EVIDENCE_FORMAT = 1

Values = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """One test or prediction."""

    folder: Path
    predictions: Values
    """Content of predictions.json; its ``images`` are sound."""
    evidence: Values
    """Content of report.json; empty where there is none."""
    metrics: Values
    """Content of metrics.json; empty for a prediction."""
    notes: list[str] = field(default_factory=list)
    """What is missing, a line each."""

    @property
    def images(self) -> list[Values]:
        """An object per image, see predictions.json."""
        return self.predictions["images"]

    @property
    def title(self) -> str:
        """Method and data, in a few words."""
        method = self.predictions.get("method") or "a method"
        data = self.evidence.get("data_set", "")
        categories = list(dict.fromkeys(image["category"] for image in self.images))
        names = ", ".join(categories[:3]) + (
            f" and {len(categories) - 3} more" if categories[3:] else ""
        )
        return f"{method} on {data} {names}".replace("  ", " ").strip()


def read_results(folder: Path) -> Results:
    """Read a folder of results.

    Raises:
        DataError: without a predictions.json that can be read, of which all else hangs.
    """
    predictions = read_json(folder / "predictions.json")
    notes: list[str] = []
    _require_known(folder / "predictions.json", predictions)
    images = [image for image in predictions["images"] if _is_sound(image)]
    if len(images) < len(predictions["images"]):
        lost = len(predictions["images"]) - len(images)
        notes.append(f"{lost} images of predictions.json lack a path, a category or a score")
    if not images:
        notes.append("no image was scored")
    is_test = any(image.get("label") is not None for image in images)
    evidence = _read(folder / EVIDENCE, notes, "no curves, no rates, not what was trained on what")
    if evidence and evidence.get("format") != EVIDENCE_FORMAT:
        notes.append(
            f"{EVIDENCE} is of another version (format {evidence.get('format')}, known is "
            f"{EVIDENCE_FORMAT}): its curves are left out; 'lightning test' writes it again"
        )
        evidence = {}
    metrics = _read(folder / "metrics.json", notes, "no metrics") if is_test else {}
    if is_test and evidence and not any("pro" in c for c in _curves(evidence)):
        notes.append("the data has no masks: there are no pixel metrics and no PRO curve")
    return Results(folder, predictions | {"images": images}, evidence, metrics, notes)


def _curves(evidence: Mapping[str, Any]) -> list[Values]:
    return [category.get("curves") or {} for category in evidence.get("categories", {}).values()]


def _require_known(file: Path, predictions: Any) -> None:
    known = isinstance(predictions, dict) and isinstance(predictions.get("images"), list)
    if not known or predictions.get("format") != FORMAT:
        said = predictions.get("format") if isinstance(predictions, dict) else None
        raise DataError(
            f"{file} is not as this version writes it (format {said}, known is {FORMAT}): write "
            "it again with 'lightning test' or 'lightning predict'"
        )


def _is_sound(image: Any) -> bool:
    if not isinstance(image, dict):
        return False
    texts = isinstance(image.get("path"), str) and isinstance(image.get("category"), str)
    return texts and isinstance(image.get("score"), int | float)


def _read(file: Path, notes: list[str], without: str) -> Values:
    """What a file holds; a note if it cannot be read."""
    try:
        content = read_json(file)
        if isinstance(content, dict):
            return content
        notes.append(f"{file.name} is not as this version writes it: {without}")
    except DataError as error:
        missing = not file.exists()
        notes.append(f"{f'{file.name} is missing' if missing else error}: {without}")
    return {}


def as_script(value: Any) -> str:
    """JSON that may stand in an HTML page: nothing in it ends a script or begins a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
