"""Looks at every pixel and byte of a data set and says what is wrong and what is odd."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_modules.catalogue import Catalogue
from data_modules.neighbour import thumbnail
from data_modules.problems import ImageError, Problem
from data_modules.reading.check import Checked
from data_modules.reading.extent import areas_seen
from data_modules.reading.formats import Header
from data_modules.reading.framing import Framing
from data_modules.reading.images import (
    MaskRule,
    Pixels,
    Values,
    as_rgb,
    binarise,
    decode,
    in_rgb_order,
    true_mask,
)
from data_modules.reading.layout import NORMAL_FOLDERS
from data_modules.records import Record


@dataclass
class Finding:
    """What one record's files showed; `mode` is Pillow's name for the kind of pixels.

    The thumbnail is None where the image cannot be read.
    """

    record: Record
    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    digest: str = ""
    mode: str = "unreadable"
    size: tuple[int, int] = (0, 0)
    thumbnail: Pixels | None = None
    header: Header | None = None
    peak: int = 0
    """The largest value of a 16-bit image."""
    areas: list[float] = field(default_factory=list)
    """Of each defect, in pixels as a network sees it."""


def examine_all(data: Catalogue, framing: Framing) -> Iterator[Finding]:
    """One finding per record, on all cores."""
    with ThreadPoolExecutor() as pool:
        yield from pool.map(
            lambda record: examine(record, data.mask_rule, data.published_empty_masks, framing),
            examined(data),
        )


def examined(data: Catalogue) -> list[Record]:
    """The records to look at: all, or photographs that are only there to be scored."""
    return data.predict_records() if data.only_predicts else data.records()


def examine(
    record: Record,
    rule: MaskRule,
    empty: frozenset[str] = frozenset(),
    framing: Framing | None = None,
) -> Finding:
    """Decode the image and its masks; masks named in `empty` are known to be published empty.

    With a `framing`, defects are measured.
    """
    checked = Checked(record)
    finding = Finding(record, checked.problems, header=checked.header)
    if checked.header:
        finding.mode = checked.header.mode
        finding.size = (checked.header.width, checked.header.height)
    broken = {problem.path for problem in finding.problems}
    if record.image not in broken:
        try:
            values = decode(record.image)
            finding.peak = int(values.max()) if values.dtype == np.uint16 else 0
            finding.thumbnail = thumbnail(as_rgb(in_rgb_order(values), record.image))
            finding.digest = hashlib.sha256(record.image.read_bytes()).hexdigest()
        except ImageError as error:
            finding.problems.append(error.problem)
    if not broken.intersection(record.masks) and record.masks:
        try:
            _examine_masks(finding, rule, empty)
            if framing and record.label and all(finding.size):
                mask = true_mask(record, rule, (finding.size[1], finding.size[0]))
                finding.areas = areas_seen(mask, framing)
        except ImageError as error:
            finding.problems.append(error.problem)
    return finding


def _examine_masks(finding: Finding, rule: MaskRule, empty: frozenset[str]) -> None:
    record = finding.record
    decoded = {path: decode(path) for path in record.masks}
    marked = [binarise(values, rule, path).any() for path, values in decoded.items()]
    path = record.masks[0]
    if record.label and not any(marked):
        largest = max(int(values.max()) for values in decoded.values())
        detail = f"marks no defect of {record.image.name}; its largest value is {largest}"
        known = path.name in empty
        kind = "mask published empty" if known else "empty mask"
        (finding.notes if known else finding.problems).append(Problem(kind, path, detail))
    if not record.label and any(marked):
        detail = f"marks a defect in the normal image {record.image}"
        finding.problems.append(Problem("mask of a normal image", path, detail))
    if rule == "half":
        finding.notes.extend(_grey_values(decoded))


def _grey_values(decoded: dict[Path, Values]) -> Iterator[Problem]:
    for path, values in decoded.items():
        between = np.setdiff1d(values, (0, np.iinfo(values.dtype).max)).tolist()
        if between:
            shown = ", ".join(map(str, between[:5])) + (", ..." if len(between) > 5 else "")
            yield Problem("grey mask", path, f"holds {shown} beside black and white")


def duplicates(findings: Iterable[Finding]) -> Iterator[tuple[bool, Problem]]:
    """Byte-identical images, each with whether they lie both in train and in test."""
    same = defaultdict(list)
    for finding in findings:
        if finding.digest:
            same[finding.digest].append(finding.record)
    for records in same.values():
        first, *others = sorted(records, key=lambda record: (record.split, str(record.image)))
        for other in others:
            crosses = {first.split, other.split} == {"train", "test"}
            kind = "duplicate across train and test" if crosses else "duplicate"
            yield crosses, Problem(kind, other.image, f"byte-identical to {first.image}")


def orphans(data: Catalogue) -> Iterator[Problem]:
    """Mask files that belong to no image."""
    used = {mask for record in data.records() for mask in record.masks}
    for category in data.categories:
        for mask in data.list_masks(category):
            if mask not in used:
                yield Problem("orphaned mask", mask, "no image has its name")


def coverage(data: Catalogue) -> Iterator[tuple[bool, Problem]]:
    """What categories lack: training images, or (which is only odd) kinds of test images."""
    counts = Counter((record.category, record.split, record.label) for record in data.records())
    for category in data.categories:
        if not counts[category, "train", 0]:
            yield True, Problem("no training images", data.root, f"of {category}")
        for label, name in ((0, "normal"), (1, "defective")):
            if not counts[category, "test", label]:
                detail = f"of {category}: metrics that need them are not defined"
                others_only = label == 0 and counts[category, "test", 1] > 0
                if others_only:  # more likely a folder of another name
                    detail += f"; their folder is called {' or '.join(NORMAL_FOLDERS)}"
                yield others_only, Problem(f"no {name} test images", data.root, detail)


@dataclass(frozen=True)
class Count:
    """Number of images of one kind, and the published number where it is known."""

    category: str
    split: str
    defect: str
    images: int
    published: int | None


def count_images(data: Catalogue) -> list[Count]:
    """Images per category, split and defect, with totals over normal and defective images."""
    if data.only_predicts:
        return [Count(data.categories[0], "predict", "-", len(data.predict_records()), None)]
    rows = []
    for category in data.categories:
        records = [record for record in data.records() if record.category == category]
        known = data.published.get(category)
        rows += _category_counts(category, records, known)
    return rows


def _category_counts(
    category: str, records: Sequence[Record], known: tuple[int, int, int] | None
) -> list[Count]:
    train, good, defective = known or (None, None, None)
    by_kind = Counter((record.split, record.defect) for record in records)
    totals = Counter(record.label for record in records)
    kinds = sorted(by_kind, key=lambda kind: (kind[0] != "train", kind[1] != "good", kind))
    published = {("train", "good"): train, ("test", "good"): good}
    both = None if train is None or good is None else train + good
    return [
        *(Count(category, *kind, by_kind[kind], published.get(kind)) for kind in kinds),
        Count(category, "all", "good", totals[0], both),
        Count(category, "all", "defective", totals[1], defective),
    ]
