"""Runs on the same images side by side: metrics, verdicts, curves, and where they disagree."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_modules.problems import DataError
from lightning_ad.reports.page import about, categories_of, encoded, metric_table, write_page
from lightning_ad.reports.results import Results, Values

PICTURES = 200
"""Images at most that are shown: those on which the runs disagree most."""


def write_comparison(runs: Sequence[Results], file: Path) -> None:
    """Write a page that compares runs.

    Raises:
        DataError: if the runs did not score the same images, with the same labels.
    """
    for run in runs[1:]:
        _require_same_images(run, runs[0])
    names = _names(runs)
    disputed = _disputed(runs)[:PICTURES]
    title = "Comparison of " + ", ".join(names)
    content = {
        "title": title,
        "notes": [
            *_differences(runs, names),
            *(f"{n}: {t}" for n, r in zip(names, runs, strict=True) for t in r.notes),
        ],
        "runs": [_run(run, name) for run, name in zip(runs, names, strict=True)],
        "disputed": disputed,
    }
    write_page(file, title, ("comparison.js",), content, _pictures(runs, disputed))


def _require_same_images(run: Results, first: Results) -> None:
    ours, theirs = ({i["path"]: i.get("label") for i in each.images} for each in (run, first))
    if ours == theirs:
        return
    odd = sorted(path for path in ours.keys() ^ theirs.keys()) or sorted(
        path for path in ours if ours[path] != theirs[path]
    )
    raise DataError(
        f"{run.folder} and {first.folder} are not of the same images ({len(ours)} and "
        f"{len(theirs)}; {odd[0]} is in one alone, or labelled otherwise): only runs on the same "
        "data can be compared"
    )


def _names(runs: Sequence[Results]) -> list[str]:
    """The methods, with the folders where methods repeat."""
    methods = [str(run.predictions.get("method")) for run in runs]
    if len(set(methods)) == len(methods):
        return methods
    return [f"{m} in {r.folder.resolve().name}" for m, r in zip(methods, runs, strict=True)]


def _differences(runs: Sequence[Results], names: Sequence[str]) -> list[str]:
    """In what the runs were measured unlike the first."""
    notes = []
    for run, name in zip(runs[1:], names[1:], strict=True):
        keys = {**runs[0].metrics, **run.metrics}
        unlike = [
            f"{key} is {run.metrics.get(key)}, not {runs[0].metrics.get(key)}"
            for key in keys
            if key.startswith("data.") or key in ("protocol", "fpr_limit", "metrics_version")
            if run.metrics.get(key) != runs[0].metrics.get(key)
        ]
        if unlike:
            notes.append(f"{name} was not measured like {names[0]}: {'; '.join(unlike)}")
    return notes


def _run(run: Results, name: str) -> Values:
    return {
        "name": name,
        "folder": str(run.folder),
        "about": about(run),
        "metrics": metric_table(run.metrics),
        "categories": categories_of(run),
        "images": [
            {
                "name": image["path"],
                "category": image["category"],
                "label": image.get("label"),
                "score": image["score"],
                "judged": image.get("verdict") != "not judged",
            }
            for image in sorted(run.images, key=lambda image: image["path"])
        ],
    }


def _disputed(runs: Sequence[Results]) -> list[str]:
    """The images by how far apart the runs rank them among their category, furthest first."""
    ranks: dict[str, list[float]] = {image["path"]: [] for image in runs[0].images}
    for run in runs:
        for category in {image["category"] for image in run.images}:
            own = [image for image in run.images if image["category"] == category]
            for place, image in enumerate(sorted(own, key=lambda image: image["score"])):
                ranks[image["path"]].append(place / max(1, len(own) - 1))
    return sorted(ranks, key=lambda path: min(ranks[path]) - max(ranks[path]))


def _pictures(runs: Sequence[Results], paths: Sequence[str]) -> Iterator[str]:
    """Of each image the picture of each run, in turn; an empty one where there is none."""
    for path in paths:
        for run in runs:
            yield encoded(run, path)
