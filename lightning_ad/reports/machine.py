"""Where and when something was computed, for the record."""

import os
import platform
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def circumstances(device: torch.device) -> dict[str, Any]:
    """Date, device, cores, system and versions, in plain values."""
    found = {
        "date": datetime.now().astimezone().isoformat(" ", "minutes"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    packages = ("lightning-ad", "lightning", "torch", "timm", "diffusers")
    return found | {"versions": {name: version(name) for name in packages}}


def cores() -> int | None:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def processor() -> str:
    """The processor's name, as far as the system tells."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
