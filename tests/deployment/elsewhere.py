"""A detector trained on one system, and its score on another that cannot train.

python -m tests.deployment.elsewhere train FOLDER     # Linux or macOS
python -m tests.deployment.elsewhere score FOLDER     # any system
"""

import math
import sys
from pathlib import Path

import cv2

from lightning_ad import load_detector
from tests.fakes import texture, write_mtd
from tests.shrunk import fit_ddad


def train(folder: Path) -> None:
    """Write a small final.ckpt, a photograph and its score."""
    from lightning_ad.cli import main  # starts on systems with POSIX signals only

    main(fit_ddad(write_mtd(folder / "mtd"), folder / "run", folder / "cache"))
    (folder / "run/final.ckpt").rename(folder / "final.ckpt")
    cv2.imwrite(str(folder / "photograph.png"), texture(0, 20, 30))
    (folder / "score.txt").write_text(str(score(folder)))


def score(folder: Path) -> float:
    """The photograph's score here."""
    return load_detector(folder / "final.ckpt").predict(folder / "photograph.png").score


def main(what: str, folder: Path) -> int:
    """Train, or compare the score here with that of the system that trained."""
    if what == "train":
        train(folder)
        return 0
    found, expected = score(folder), float((folder / "score.txt").read_text())
    sys.stdout.write(f"{found} here, {expected} where it was trained\n")
    return int(not math.isclose(found, expected, rel_tol=1e-4))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
