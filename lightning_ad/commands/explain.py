"""What the command line says when it cannot go on: the reason; the traceback only on request."""

import os
import sys
from types import TracebackType

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_ad.detector.calibration import NotCalibratedError

EXPECTED = (
    ValueError,
    OSError,
    FloatingPointError,
    MisconfigurationException,
    NotCalibratedError,
)
"""Errors that name what was wrong with the input; any other is a fault of this program's."""

TRACEBACK = "LIGHTNING_AD_TRACEBACK"
"""Environment variable that asks for tracebacks."""


def explain_errors() -> None:
    """From now on, let an error that ends this process be explained in a few lines."""
    sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted; the same command goes on\n")
    elif issubclass(kind, EXPECTED) and TRACEBACK not in os.environ:
        sys.stderr.write(f"error: {reason(error)}\n({TRACEBACK}=1 shows where it came from)\n")
    else:
        sys.__excepthook__(kind, error, trace)


def reason(error: BaseException) -> str:
    """The message of an error, without what jsonargparse or a loader's worker wrapped around it."""
    message = str(error)
    if message.startswith("Does not validate against any of the Union subtypes"):
        return reason(error.__cause__) if error.__cause__ else message
    if " in DataLoader worker process " in message:  # with the worker's traceback
        return message.rpartition(f"{type(error).__name__}: ")[2].strip()
    return message
