"""predictions.json and the tables beside it: what is said about every image.

While images are scored, each process appends a line per image to a ledger of its own: memory does
not grow with their number, and what was found survives whatever ends the process. At the end the
first process writes all of it in the order of the paths, `docs/decisions.md` has the names.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_modules.reading.store import file_stamp, make_folder, written_whole
from lightning_ad.maths.regions import Region
from lightning_ad.reports.files import append_csv, write_csv

FORMAT = 1
"""Of predictions.json: goes up when a name changes its meaning."""

LEDGER = "unfinished-{}.jsonl"
BEFORE = LEDGER.format("before")
"""The ledger of what an interrupted prediction had found, which the next one goes on with."""
WATCHED = "watched.jsonl"
"""The ledger of a folder that is watched: it stays, and the next watch goes on in it."""
REGION_COLUMNS = (
    *("path", "category", "region", "x", "y", "width", "height", "area", "share"),
    *("centroid_x", "centroid_y", "peak_x", "peak_y", "peak_value"),
)
Columns = Sequence[str]
Line = dict[str, Any]
"""What a ledger holds of an image: ``file``, its path as it was read; ``stamp``, that of the file;
``by``, what it was scored by; ``image``, its object in predictions.json; ``masks``, the pixels of
its regions as COCO has them."""


class Ledger:
    """What one process has found so far, a line per image; a file that exists goes on.

    Args:
        file: the ledger.
        by: stands for all that decides what is found of an image; None if nobody says.
    """

    def __init__(self, file: Path, by: str | None = None) -> None:
        self.file, self.by = file, by
        make_folder(file.parent)
        content = file.read_bytes() if file.exists() else b""
        file.write_bytes(content[: content.rfind(b"\n") + 1])  # less what a killed process began

    def add(self, file: str, image: Mapping[str, Any], regions: Sequence[Region]) -> Line:
        """Append an image with its regions, the latter by the names of predictions.json."""
        line: Line = {
            "file": file,
            "stamp": file_stamp(Path(file)),
            "by": self.by,
            "image": {**image, "regions": [as_object(region) for region in regions]},
            "masks": [_run_lengths(region, image["size"]) for region in regions],
        }
        try:
            with self.file.open("a", encoding="utf-8") as ledger:
                ledger.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OSError(f"{self.file} cannot be written: {error.strerror}") from error
        return line


class Findings:
    """All lines of the ledgers in a folder, in the order of the images' paths."""

    def __init__(self, ledgers: Sequence[Path]) -> None:
        places = []
        for number, ledger in enumerate(ledgers):
            with ledger.open("rb") as lines:
                start = 0
                for line in lines:
                    if not line.endswith(b"\n"):
                        break  # a killed process, or a full disk, ended in it
                    places.append((json.loads(line)["file"], number, start))
                    start += len(line)
        self._ledgers, self._places = ledgers, sorted(places)

    @property
    def files(self) -> set[str]:
        """The paths of all images, as they were read."""
        return {file for file, _, _ in self._places}

    def __iter__(self) -> Iterator[Line]:
        for _, number, start in self._places:
            with self._ledgers[number].open("rb") as ledger:
                ledger.seek(start)
                yield json.loads(ledger.readline())


def scored_before(folder: Path, by: str | None, is_whole: Callable[[Line], bool]) -> set[str]:
    """Collect, in the ledger `BEFORE`, what interrupted predictions left in a folder.

    Kept are images that were scored by the same, whose files are as they were and of which all is
    there that goes with them, as `is_whole` says. Returns their paths.
    """
    ledgers, known = sorted(folder.glob(LEDGER.format("*"))), set[str]()
    if not ledgers:
        return known
    with written_whole(folder / BEFORE) as partial, partial.open("w", encoding="utf-8") as ledger:
        for line in Findings(ledgers):
            file = line["file"]
            same = by is not None and line.get("by") == by and file not in known
            if same and line["stamp"] == [*file_stamp(Path(file))] and is_whole(line):
                known.add(file)
                ledger.write(json.dumps(line) + "\n")
    for each in ledgers:
        if each.name != BEFORE:
            each.unlink()
    return known


def watched_before(folder: Path) -> set[str]:
    """The paths of the images that an earlier watch of a folder of predictions has scored."""
    ledger = folder / WATCHED
    return Findings([ledger]).files if ledger.exists() else set()


def write_findings(
    folder: Path, ledgers: Sequence[Path], about: Mapping[str, Any], table: Path, columns: Columns
) -> Counter[tuple[str, str | None]]:
    """Write into a folder what ledgers hold.

    That is predictions.json, which begins with ``about``; regions.csv; regions.coco.json; and
    ``table``, a CSV file with these ``columns``. Returns the number of images by category and
    verdict.
    """
    findings = Findings(ledgers)
    write_table(table, columns, findings)
    _write_predictions(folder / "predictions.json", about, findings)
    write_csv(folder / "regions.csv", REGION_COLUMNS, _region_rows(findings))
    _write_coco(folder / "regions.coco.json", findings)
    images = (line["image"] for line in findings)
    return Counter((image["category"], image["verdict"]) for image in images)


def write_table(file: Path, columns: Columns, findings: Findings) -> None:
    """Write a CSV file with these of an image's names, ``path`` as it was read.

    ``anomalous`` is the verdict as 1 or 0, ``regions`` their number; what is not known is empty.
    """
    write_csv(file, columns, ([_cell(line, name) for name in columns] for line in findings))


def append_row(file: Path, columns: Columns, line: Line) -> None:
    """Put an image at the end of a table that `write_table` wrote."""
    append_csv(file, [_cell(line, name) for name in columns])


def _cell(line: Line, column: str) -> Any:
    image = line["image"]
    if column == "path":
        return line["file"]
    if column == "regions":
        return len(image["regions"])
    if column == "anomalous":
        return {"anomalous": 1, "normal": 0}.get(image["verdict"])
    return image[column]


def as_object(region: Region) -> dict[str, Any]:
    """A region by the names of predictions.json."""
    return {
        "box": list(region.box),
        "area": region.area,
        "share": region.share,
        "centroid": list(region.centroid),
        "peak": {"at": list(region.peak_at), "value": region.peak_value},
    }


def _run_lengths(region: Region, size: Sequence[int]) -> dict[str, Any]:
    """A region's pixels as COCO's run lengths: column by column, outside and inside in turn."""
    x, y, width, height = region.box
    columns: NDArray[np.bool_] = np.zeros((width, size[0]), bool)
    columns[:, y : y + height] = region.mask.T
    flat = columns.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=False)) + x * size[0]
    ends = [0, *changes.tolist(), size[0] * size[1]]
    return {"size": list(size), "counts": np.diff(ends).tolist()}


def _region_rows(findings: Findings) -> Iterator[list[Any]]:
    for line in findings:
        for number, region in enumerate(line["image"]["regions"], 1):
            yield [
                *(line["file"], line["image"]["category"], number),
                *(*region["box"], region["area"], region["share"]),
                *(*region["centroid"], *region["peak"]["at"], region["peak"]["value"]),
            ]


def _write_predictions(file: Path, about: Mapping[str, Any], findings: Findings) -> None:
    """An object, with a line for each image."""
    head = json.dumps({"format": FORMAT, **about}, indent=1, allow_nan=False).removesuffix("\n}")
    with written_whole(file) as partial, partial.open("w", encoding="utf-8") as text:
        text.write(f'{head},\n "images": [')
        for number, line in enumerate(findings):
            text.write(("," if number else "") + "\n  ")
            text.write(json.dumps(line["image"], allow_nan=False))
        text.write("\n ]\n}\n")


def _write_coco(file: Path, findings: Findings) -> None:
    """Regions as annotations in the format of the COCO data set, with their peaks as scores."""
    images: list[dict[str, Any]] = []
    with written_whole(file) as partial, partial.open("w", encoding="utf-8") as text:
        text.write('{"categories": [{"id": 1, "name": "anomaly"}],\n "annotations": [')
        number = 0
        for line in findings:
            height, width = line["image"]["size"]
            name = {"id": len(images) + 1, "file_name": line["image"]["path"]}
            images.append({**name, "width": width, "height": height})
            for region, mask in zip(line["image"]["regions"], line["masks"], strict=True):
                text.write(("," if number else "") + "\n  ")
                number += 1
                text.write(json.dumps(_annotation(number, len(images), region, mask)))
        text.write(f'\n ],\n "images": {json.dumps(images)}}}\n')


def _annotation(
    number: int, image: int, region: dict[str, Any], mask: dict[str, Any]
) -> dict[str, Any]:
    return {
        **{"id": number, "image_id": image, "category_id": 1, "iscrowd": 0},
        **{"bbox": region["box"], "area": region["area"], "segmentation": mask},
        "score": region["peak"]["value"],
    }
