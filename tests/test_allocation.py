"""Freed memory is kept for later tensors."""

import platform
import resource

import pytest
import torch

from lightning_ad.allocation import keep_freed_memory

MEGABYTES = 48  # more than glibc ever keeps by itself


def pages_cleared():
    """Pages that the system hands out for one large tensor, when another was freed just before."""
    torch.ones(MEGABYTES << 18)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(MEGABYTES << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
def test_a_large_tensor_takes_over_freed_memory():
    try:
        keep_freed_memory(False)
        fresh = pages_cleared()
        keep_freed_memory()
        kept = pages_cleared()
    finally:
        keep_freed_memory(False)
    assert fresh > 10  # of 4 KiB, or fewer and larger ones
    assert kept < fresh / 4


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("called the C library"))
    keep_freed_memory()
