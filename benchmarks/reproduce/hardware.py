"""What a study ran on, in words."""

from pathlib import Path

import torch

from lightning_ad.reports.machine import cores, processor


def hardware() -> str:
    """The GPU, or the processor and how many of its cores this process may use."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    named = " ".join([processor(), *_wide()])
    return f"{named}, {cores()} cores, {torch.get_num_threads()} threads"


def _wide() -> list[str]:
    """What decides how fast the processor multiplies, in brackets."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    features = " ".join(line for line in lines if line.startswith("flags"))
    return [f"({name})" for name in ("avx512f", "amx_bf16") if name in features]
