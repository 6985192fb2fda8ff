"""How tensors on a CPU get their memory.

The C library fetches memory for a large feature map anew from the system at every operation, and
gives it back afterwards. The system clears it page by page on the way, which takes several times as
long as adding up two such maps.
"""

import ctypes
import platform
from pathlib import Path

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Settings of glibc's mallopt, by their numbers in its malloc.h."""


def keep_freed_memory() -> None:
    """Let this process hand freed memory to later tensors, from now on, and not to the system.

    It then holds as much as it ever needed at once. With another C library than glibc, nothing is
    changed.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)


def require_memory(n_bytes: int, what: str, advice: str) -> None:
    """Raise a MemoryError that says what to do if this machine has less memory to give than that.

    Where the system does not say how much it has (only Linux does), nothing is asked for.
    """
    free = _available_memory()
    if free is not None and n_bytes > free:
        raise MemoryError(
            f"{what} need {n_bytes / 1e9:.2f} GB of memory, {free / 1e9:.2f} GB are free: {advice}"
        )


def _available_memory() -> int | None:
    """Bytes that new tensors can take without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":") for line in lines)
    return 1024 * int(sizes["MemAvailable"].split()[0])
