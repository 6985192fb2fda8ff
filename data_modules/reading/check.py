"""The check before a run: every file is there, complete to its end, and masks fit their images.

Only headers and the last bytes are read, so that thousands of images take seconds. `doctor` looks
at every pixel instead.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from data_modules.problems import ImageError, Problem, raise_any
from data_modules.reading.formats import Header
from data_modules.reading.images import MaskRule, read_mask, require_complete, require_same_size
from data_modules.reading.remarks import log_remarks, turned
from data_modules.records import Record


def check_files(name: str, records: Sequence[Record], rule: MaskRule | None = None) -> None:
    """Raise one DataError that lists every missing, truncated or wrong-sized file.

    With a `rule`, masks are decoded as well, as what is wrong in them shows only then.
    """
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda record: Checked(record, rule), records))
    raise_any(name, (problem for checked in found for problem in checked.problems))
    log_remarks(name, turned([(each.record.image, each.header) for each in found if each.header]))


class Checked:
    """One record, the header of its image, and what is wrong with its files as far as they tell."""

    def __init__(self, record: Record, rule: MaskRule | None = None) -> None:
        self.record = record
        self.rule = rule
        self.header: Header | None = None
        self.problems = list(self._problems())

    def _problems(self) -> Iterator[Problem]:
        shape = None
        try:
            self.header = require_complete(self.record.image)
            shape = self.header[:2]
        except ImageError as error:
            yield error.problem
        for mask in self.record.masks if self.record.label else ():
            if not mask.exists():
                yield Problem("missing mask", mask, f"expected for {self.record.image}")
                continue
            try:
                mask_shape = require_complete(mask)[:2]
                require_same_size(mask, mask_shape, shape or mask_shape)
                if self.rule:
                    read_mask(mask, self.rule)
            except ImageError as error:
                yield error.problem
