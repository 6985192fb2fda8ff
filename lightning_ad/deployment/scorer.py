"""A detector from its final checkpoint alone, to score photographs outside of a Trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from lightning_ad.detector.checkpoint import cannot_be_built, read_checkpoint
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.trust import trusted_config


class Loaded(NamedTuple):
    """What a final checkpoint holds."""

    detector: AnomalyDetector
    config: dict[str, Any]
    """The configuration that it was trained with, as far as it is needed."""
    trained_with: dict[str, Any]
    """Version, settings and files of its training; empty in checkpoints of early versions."""


def load_detector(path: str | Path, trust: Sequence[str] = ()) -> AnomalyDetector:
    """A detector from its ``final.ckpt``, prepared as `lightning test` prepares it, on the CPU.

    It scores in the precision it was trained in, without gradients; ``detector.to("cuda")`` moves
    it. Nothing in the file is executed.

    Args:
        path: the checkpoint.
        trust: packages besides lightning_ad whose classes it may name, see
            `lightning_ad.detector.trust`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not such a checkpoint, or its method or networks are not known here.
    """
    return load(path, trust).detector


def load(path: str | Path, trust: Sequence[str] = ()) -> Loaded:
    """A detector as `load_detector` gives it, with what else its checkpoint says."""
    file = Path(path).expanduser()
    checkpoint = read_checkpoint(file)
    if "config" not in checkpoint:
        raise ValueError(
            f"{file} is the checkpoint of a phase; the run's final.ckpt suffices alone"
        )
    config = trusted_config(checkpoint["config"], file, trust)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(AnomalyDetector, "model")
    try:
        detector = parser.instantiate(parser.parse_object({"model": config["model"]})).model
    except Exception as error:
        raise cannot_be_built(file, checkpoint, error) from error
    detector.on_load_checkpoint(checkpoint)
    detector.load_state_dict(checkpoint["state_dict"])
    detector.precision = str(config["trainer"]["precision"])
    detector.requires_grad_(False).eval()
    detector.prepare_inference()
    return Loaded(detector, config, checkpoint.get("trained_with") or {})
