"""What a run goes on with but says: files left out, tags ignored, values that fill no range."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from data_modules.problems import Problem
from data_modules.reading.formats import Header

log = logging.getLogger(__name__)

SHOWN = 3


@rank_zero_only
def log_remarks(name: str, remarks: Iterable[Problem]) -> None:
    """Log a line for each kind of remark on the data set `name`, with the first files."""
    by_kind = defaultdict(list)
    for remark in remarks:
        by_kind[remark.kind].append(remark)
    for kind, found in by_kind.items():
        files = ", ".join(str(remark.path) for remark in found[:SHOWN])
        more = ", ... (lightning doctor lists all)" if len(found) > SHOWN else ""
        log.warning("%s: %s (%d): %s: %s%s", name, kind, len(found), found[0].detail, files, more)


def turned(headers: Sequence[tuple[Path, Header]]) -> Iterator[Problem]:
    """A remark on each image that carries an orientation."""
    turns = Counter(header.orientation for _, header in headers)
    carry = len(headers) - turns[1]
    differ = "; the others do not, so they differ" if turns[1] else ""
    if len(turns) - (1 in turns) > 1:
        differ = "; they differ"
    detail = (
        f"{carry} of {len(headers)} images carry an orientation (EXIF), which is ignored{differ}. "
        "Masks must be drawn on the pixels as stored: save turned images without the tag"
    )
    for path, header in headers:
        if header.orientation != 1:
            yield Problem("orientation ignored", path, detail)


def dark(peaks: Sequence[tuple[Path, int]], white_level: int) -> Iterator[Problem]:
    """A remark if the largest values of 16-bit images use less than half of the range."""
    largest = max((peak for _, peak in peaks), default=0)
    if 0 < largest <= white_level // 2:
        bits = largest.bit_length()
        detail = (
            f"the largest value is {largest} of {white_level}, as of a camera of {bits} bits: of "
            f"256 levels {largest * 255 // white_level + 1} remain. Set data.white_level to "
            f"{2**bits - 1}"
        )
        yield Problem("dark 16-bit images", peaks[0][0], detail)
