"""What the command line says when it cannot go on: the reason; the traceback only on request."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRACEBACK = "LIGHTNING_AD_TRACEBACK"
"""Environment variable that asks for tracebacks."""


@contextmanager
def explained_errors() -> Iterator[None]:
    """End the process with the reason of an error in a few lines, before W&B's hook sees it."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on\n")
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if TRACEBACK in os.environ or not isinstance(error, _expected()):
            raise
        sys.exit(f"error: {reason(error)}\n({TRACEBACK}=1 shows where it came from)")


def _expected() -> tuple[type[Exception], ...]:
    """Errors that name what was wrong with the input; any other is a fault of this program's."""
    # Imported here: a list of the commands needs neither.
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from lightning_ad.detector.calibration import NotCalibratedError

    return (ValueError, OSError, FloatingPointError, MisconfigurationException, NotCalibratedError)


def reason(error: BaseException) -> str:
    """The message of an error, without what jsonargparse or a loader's worker wrapped around it."""
    message = str(error)
    if message.startswith("Does not validate against any of the Union subtypes"):
        return reason(error.__cause__) if error.__cause__ else message
    if " in DataLoader worker process " in message:  # with the worker's traceback
        return message.rpartition(f"{type(error).__name__}: ")[2].strip()
    return message
