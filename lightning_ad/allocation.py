"""How tensors on a CPU get their memory.

The C library fetches memory for a large feature map anew from the system at every operation, and
gives it back afterwards. The system clears it page by page on the way, which takes several times as
long as adding up two such maps.
"""

import ctypes
import platform

# Settings of glibc's mallopt, from its malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
LARGEST_MMAP_THRESHOLD = 1 << 25


def keep_freed_memory(keep: bool = True) -> None:
    """Let the process hand freed memory to later tensors, instead of to the system.

    The process then holds what it needed at most. With another C library than glibc, nothing is
    changed.

    Args:
        keep: False goes back to about what glibc does by itself, and empties what is held.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    if keep:
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)
    else:
        libc.mallopt(MMAP_MAX, 1 << 16)
        libc.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)
