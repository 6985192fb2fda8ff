"""The time as a device has it, which may still be at work on what it was given."""

import time

import torch


def finish_work(device: torch.device) -> None:
    """Wait until the device has done all work given to it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def now(device: torch.device) -> float:
    """The time in seconds at which the device has done all work given to it."""
    finish_work(device)
    return time.perf_counter()
