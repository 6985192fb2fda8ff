"""What a study ran on, in words."""

import os
import platform
from pathlib import Path

import torch


def hardware() -> str:
    """The GPU, or the processor and how many of its cores this process may use."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads"


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    features = " ".join(line for line in lines if line.startswith("flags"))
    wide = [name for name in ("avx512f", "amx_bf16") if name in features]
    named = names[0] if names else platform.processor() or platform.machine()
    return " ".join([named, *(f"({name})" for name in wide)])
