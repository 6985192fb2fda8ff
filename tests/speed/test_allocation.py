"""Freed memory is kept for later tensors."""

import multiprocessing
import platform

import pytest
import torch

from lightning_ad.speed.allocation import keep_freed_memory

MEGABYTES = 48  # more than glibc keeps by itself


def pages_cleared():
    """Pages that the system hands out while one large tensor follows on another."""
    import resource  # which not every system has

    counts = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        x = torch.ones(MEGABYTES << 18)
        for _ in range(10):
            x = x + 1
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(counts)


def before_and_after():
    before = pages_cleared()
    keep_freed_memory()
    return before, pages_cleared()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets glibc's allocator")
def test_a_large_tensor_takes_over_freed_memory():
    with multiprocessing.get_context("spawn").Pool(1) as fresh:  # what other tests set stays
        before, after = fresh.apply(before_and_after)
    assert before > 100  # of 4 KiB, or fewer and larger ones
    assert after < before / 10


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("called the C library"))
    keep_freed_memory()
