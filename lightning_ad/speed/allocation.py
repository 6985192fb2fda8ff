"""How tensors on a CPU get their memory.

The C library fetches memory for a large feature map anew from the system at every operation, and
gives it back afterwards. The system clears it page by page on the way, which takes several times as
long as adding up two such maps.
"""

import ctypes
import platform

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
