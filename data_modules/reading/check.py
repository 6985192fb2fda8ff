"""The check before a run: every file is there, complete to its end, and masks fit their images.

Only headers and the last bytes are read, so that thousands of images take seconds. `doctor` looks
at every pixel instead.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from data_modules.problems import ImageError, Problem, raise_any
from data_modules.reading.images import require_complete, require_same_size
from data_modules.records import Record


def check_files(name: str, records: Sequence[Record]) -> None:
    """Raise one DataError that lists every missing, truncated or wrong-sized file."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda record: list(file_problems(record)), records)
        raise_any(name, (problem for problems in found for problem in problems))


def file_problems(record: Record) -> Iterator[Problem]:
    """What is wrong with the files of one record, as far as headers and sizes tell."""
    shape = None
    try:
        shape = require_complete(record.image)
    except ImageError as error:
        yield error.problem
    for mask in record.masks if record.label else ():
        if not mask.exists():
            yield Problem("missing mask", mask, f"expected for {record.image}")
            continue
        try:
            mask_shape = require_complete(mask)
            require_same_size(mask, mask_shape, shape or mask_shape)
        except ImageError as error:
            yield error.problem
