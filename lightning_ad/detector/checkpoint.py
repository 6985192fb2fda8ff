"""A detector's checkpoints: what is in them, and how they are read without running anything."""

import zipfile
import zlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from torch import nn

from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.reports.reasons import in_a_line


def detector_checkpoint(detector: AnomalyDetector, config: str | None) -> dict[str, Any]:
    """The content of a checkpoint of ours, as Lightning reads it.

    With ``config`` it is self-sufficient: it also holds the frozen parts that phases leave out, and
    the configuration.
    """
    checkpoint: dict[str, Any] = {
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
        "state_dict": detector.state_dict(),
    }
    if config is None:
        detector.on_save_checkpoint(checkpoint)
    else:
        checkpoint |= {"method": type(detector).__name__, "categories": detector.categories}
        checkpoint |= {"trained_with": detector.trained_with, "config": config}
    return checkpoint


def load_weights(
    detector: AnomalyDetector, path: Path, parts: list[nn.Module] | None = None
) -> None:
    """Load a checkpoint of the same method into ``detector``, or only these parts of it."""
    load_content(detector, read_checkpoint(path), path, parts)


def load_content(
    detector: AnomalyDetector,
    checkpoint: dict[str, Any],
    path: Path,
    parts: list[nn.Module] | None = None,
) -> None:
    """Load what `read_checkpoint` found in ``path``, as `load_weights` does."""
    if parts is not None:
        names = tuple(f"{n}." for n, m in detector.named_modules() if any(m is p for p in parts))
        state = checkpoint["state_dict"].items()
        checkpoint["state_dict"] = {key: value for key, value in state if key.startswith(names)}
    detector.on_load_checkpoint(checkpoint)
    try:
        detector.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        first = "\n".join(str(error).splitlines()[:4])
        raise ValueError(
            f"{path} holds other networks than the configuration: make model agree with those of "
            f"the run that wrote it, see its config.yaml. {first}"
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of ours; nothing in the file is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    require_intact(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["state_dict"], checkpoint["method"]
    except Exception as error:
        raise ValueError(
            f"{path} is no readable checkpoint of lightning_ad ({type(error).__name__}: {error}); "
            "'lightning fit' writes them, 'lightning import' makes them of the authors' files"
        ) from error
    return checkpoint


def require_intact(path: Path) -> None:
    """Raise a ValueError if a part of a file by `torch.save` is not what was written.

    The file is a zip archive with a checksum for each tensor, which `torch.load` does not look at.
    """
    if not zipfile.is_zipfile(path):
        return  # which whoever loads it will say
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
        damaged = str(error)
    if damaged:
        raise ValueError(
            f"{path} is damaged, its content differs from what was written ({damaged}): restore it "
            "from a copy, or remove it and repeat 'lightning fit', which makes it again"
        )


def cannot_be_built(path: Path, checkpoint: dict[str, Any], error: Exception) -> ValueError:
    """The error for a configuration of which this version does not know all settings."""
    model = yaml.safe_load(checkpoint["config"])["model"]["class_path"]
    written = (checkpoint.get("trained_with") or {}).get("version", "an earlier version")
    return ValueError(
        f"{path} holds a {model} that cannot be built by lightning-ad {version('lightning-ad')}, "
        f"{written} wrote it: {in_a_line(str(error))}"
    )


def hashed(network: nn.Module) -> Iterator[str | bytes]:
    """What a hash of all that decides a network's output is of.

    The same weights give other features with another stride, or for images scaled otherwise: so its
    structure, all names, then the bytes of each parameter and buffer, saved or not.
    """
    yield repr(network)
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    yield from state
    for tensor in state.values():
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
