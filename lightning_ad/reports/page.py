"""The report: one HTML file that needs nothing else, made of results and of the files in `html/`.

All text of the results travels as JSON and becomes text nodes in the reader's browser, so that no
name of a file is ever taken for HTML.
"""

import base64
import html
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path, PurePath
from string import Template
from typing import Any
from urllib.parse import quote

import yaml

from data_modules.reading.store import written_whole
from lightning_ad.metrics.detection import IMAGE_METRICS, PIXEL_METRICS
from lightning_ad.reports.pictures import flat_name, picture_name
from lightning_ad.reports.results import Results, Values, as_script

NAME = "report.html"
PICTURES = 1000
"""Images at most whose pictures are in the file, which then has some 20 MB."""
REGIONS = 10
"""Regions at most that are listed of an image."""
SHARED = ("dom.js", "counts.js", "charts.js")

log = logging.getLogger(__name__)


def write_report(results: Results) -> Path:
    """Write the report of a test or a prediction into its folder."""
    chosen = _with_pictures(results)
    pictures = {path: number for number, path in enumerate(chosen)}
    images = [_image(image, results, pictures.get(image["path"])) for image in results.images]
    content = {
        "title": results.title,
        "notes": [*results.notes, *_picture_notes(results, len(chosen))],
        "about": about(results),
        "settings": _settings(results),
        "metrics": metric_table(results.metrics),
        "rate": results.predictions.get("false_alarm_rate"),
        "thresholdFrom": results.predictions.get("threshold_from"),
        "categories": categories_of(results),
        "images": images,
    }
    file = results.folder / NAME
    write_page(
        file,
        results.title,
        ("gallery.js", "report.js"),
        content,
        (encoded(results, path) for path in chosen),
    )
    return file


def write_page(
    file: Path, title: str, scripts: Sequence[str], content: Values, pictures: Iterator[str]
) -> None:
    """Write an HTML file whose ``scripts`` show the content; pictures are JPEG files in base 64."""
    before, after = shell(title, (*SHARED, *scripts), content)
    with written_whole(file) as partial, partial.open("w", encoding="utf-8") as page:
        page.write(before)
        page.writelines(f'{"," if number else ""}"{one}"' for number, one in enumerate(pictures))
        page.write(after)
    log.info("report: %s (%.1f MB)", file, file.stat().st_size / 1e6)


def shell(title: str, scripts: Sequence[str], content: Values) -> tuple[str, str]:
    """The page whose ``scripts`` show the content, before and after the place of its pictures."""
    parts = {
        "title": html.escape(title.encode(errors="replace").decode()),
        "style": _asset("style.css"),
        "content": as_script(content),
        "script": "\n".join(_asset(name) for name in scripts),
    }
    page = Template(_asset("page.html")).substitute(parts, pictures="\0")
    before, _, after = page.partition("\0")
    return before, after


def about(results: Results) -> list[tuple[str, str]]:
    """What was trained on what, where and when: names and values."""
    evidence = results.evidence
    origin = evidence.get("trained_with") or {}
    trained = origin.get("trained") or {}
    rows = {
        "method": results.predictions.get("method"),
        "data": evidence.get("data_set"),
        "images scored": len(results.images),
        "scored in": evidence.get("root") or results.predictions.get("root"),
        "trained in": origin.get("root"),
        "training images": trained.get("images"),
        "files of the training": origin.get("files"),
        "fingerprint": results.predictions.get("fingerprint"),
        "trained": _circumstances(trained) or origin.get("version"),
        "scored": _circumstances(evidence.get("scored") or {}),
    }
    return [(name, str(value)) for name, value in rows.items() if value is not None and value != ""]


def _circumstances(machine: Mapping[str, Any]) -> str:
    forms = {
        "date": "{}",
        "device": "{}",
        "cores": "{} cores",
        "system": "{}",
        "python": "Python {}",
    }
    known = [form.format(machine[name]) for name, form in forms.items() if machine.get(name)]
    versions = (machine.get("versions") or {}).items()
    return ", ".join([*known, *(f"{name} {version}" for name, version in versions)])


def metric_table(metrics: Mapping[str, Any]) -> Values:
    """The metrics' names, and a row for each category and the mean; None where undefined."""
    names = [name for name in IMAGE_METRICS + PIXEL_METRICS if f"test/mean/{name}" in metrics]
    titles = dict.fromkeys(
        key.removeprefix("test/").rpartition("/")[0] for key in metrics if key.startswith("test/")
    )
    rows = [[t, *(metrics.get(f"test/{t}/{name}") for name in names)] for t in titles if t]
    return {"names": names, "rows": rows}


def categories_of(results: Results) -> list[Values]:
    """Of each category: its name, threshold, scores of held-out normal images and curves."""
    evidence = results.evidence.get("categories") or {}
    found: dict[str, Values] = {}
    for image in results.images:
        known = evidence.get(image["category"]) or {}
        found.setdefault(
            image["category"],
            {
                "name": image["category"],
                "threshold": image.get("threshold"),
                "normal": sorted(known.get("normal_scores") or []),
                "curves": known.get("curves") or {},
            },
        )
    return list(found.values())


def _settings(results: Results) -> str:
    settings = (results.evidence.get("trained_with") or {}).get("settings")
    return yaml.safe_dump(settings, sort_keys=False) if settings else ""


def _image(image: Values, results: Results, picture: int | None) -> Values:
    """What the page knows of an image, by short names as there may be thousands."""
    regions = image.get("regions") or []
    return {
        "name": image["path"],
        "category": image["category"],
        "kind": image.get("kind"),
        "label": image.get("label"),
        "score": image["score"],
        "p": image.get("p_value"),
        "judged": image.get("verdict") != "not judged",
        "size": image.get("size"),
        "regions": regions[:REGIONS],
        "count": len(regions),
        "picture": picture,
        "panel": _link(image, results.folder),
    }


def _link(image: Values, folder: Path) -> str | None:
    """Where the large picture of an image is, seen from the report."""
    name = PurePath(image["path"])
    inner = PurePath(image["path"].removeprefix(f"{image['category']}/"))
    for file in (
        PurePath("panels", picture_name(name, ".jpg")),
        PurePath("panels", image["category"], flat_name(inner, ".jpg")),
    ):
        if (folder / file).is_file():
            return quote(os.fsencode(file.as_posix()))
    return None


def thumbnail_of(image: Values, folder: Path) -> Path:
    """The file with the small picture of an image."""
    return folder / "thumbnails" / picture_name(PurePath(image["path"]), ".jpg")


def _with_pictures(results: Results) -> list[str]:
    """The paths of the images whose pictures the file gets, those to look at first before others.

    These are false alarms and missed defects, then the highest scores.
    """

    def order(image: Values) -> tuple[bool, float]:
        label = image.get("label")
        expected = None if label is None else ("normal", "anomalous")[label]
        return image.get("verdict") == expected or expected is None, -image["score"]

    there = [i for i in results.images if thumbnail_of(i, results.folder).is_file()]
    return [image["path"] for image in sorted(there, key=order)[:PICTURES]]


def _picture_notes(results: Results, shown: int) -> list[str]:
    total = len(results.images)
    if shown == total:
        return []
    if shown == PICTURES:
        return [f"this file has the pictures of {shown:,} of {total:,} images: mistakes, then the "
                "highest scores"]  # fmt: skip
    return [f"{total - shown} of {total} images have no pictures (in {results.folder.name}/"
            "thumbnails, which the test or the prediction writes)"]  # fmt: skip


def encoded(results: Results, path: str) -> str:
    """The small picture of an image in base 64; empty if there is none."""
    file = thumbnail_of({"path": path}, results.folder)
    return base64.b64encode(file.read_bytes()).decode() if file.is_file() else ""


def _asset(name: str) -> str:
    return (files("lightning_ad.reports") / "html" / name).read_text(encoding="utf-8")
