"""What tables, pictures and the report cost beside scoring: a prediction with and without them.

    python -m benchmarks.report --ckpt_path runs/x/final.ckpt --photographs folder [--rounds 3]

Each round predicts all photographs three times: scoring alone, with tables and regions, and with
pictures and the report too. Drawing runs in threads beside scoring, so that with cores to spare the
wall clock sees less of it than the CPU's; both are given. What counts are ratios within one run.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lightning.pytorch import Callback, Trainer

from benchmarks.measure import medians
from data_modules import Folder
from lightning_ad import load_detector
from lightning_ad.callbacks import Panels, Predictions, Report

VERSIONS: dict[str, Callable[[], list[Callback]]] = {
    "scoring alone": list,
    "with tables and regions": lambda: [Predictions()],
    "with pictures and report": lambda: [Predictions(), Panels(), Report()],
}


def prediction(
    checkpoint: Path, photographs: Path, callbacks: Callable[[], Sequence[Callback]], batch: int
) -> Callable[[], None]:
    """A step that predicts all photographs, in a folder of its own that is removed."""
    detector = load_detector(checkpoint)
    size, fit = detector.framing.image_size, detector.framing.fit
    data = Folder(str(photographs), image_size=size, fit=fit, batch_size=batch, num_workers=0)

    def predict() -> None:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                default_root_dir=folder,
                callbacks=list(callbacks()),
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.predict(detector, data, return_predictions=False)

    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    paths = options.ckpt_path, options.photographs
    steps = {name: prediction(*paths, make, options.batch) for name, make in VERSIONS.items()}
    taken = medians(steps, options.rounds)
    images = len(Folder(str(options.photographs)).predict_records())
    alone = taken["scoring alone"]
    for name, one in taken.items():
        wall, cpu = (1000 * (a - b) / images for a, b in zip(one[:2], alone[:2], strict=True))
        shares = one.wall / alone.wall - 1, one.cpu / alone.cpu - 1
        print(
            f"  {name:26}{1000 * one.wall / images:8.1f} ms/image, {wall:+.1f} "
            f"({shares[0]:+.0%}); in CPU time {cpu:+.1f} ({shares[1]:+.0%})"
        )


if __name__ == "__main__":
    main()
