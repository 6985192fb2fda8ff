"""Random maps, scored here and by scikit-learn and the slow reference.

    python -m tests.metrics.random_cases --cases 600

Prints the largest difference of each metric; the exit status says whether all are below 1e-9.
"""

import argparse
import sys

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from lightning_ad.metrics import evaluate_maps
from tests import reference

MOST = 1e-9
SHAPES = {
    "plain": lambda x: x,
    "negative": lambda x: x - 50,
    "tied": lambda x: np.round(2 * x) / 2,
    "two values": lambda x: np.where(x > 1, 1.0, 0.0),
    "crowded": lambda x: 0.5 + 1e-4 * np.tanh(x),
    "saturated": lambda x: np.clip(x, 0, 1),
    "many octaves": lambda x: np.exp(8 * x),
    "denormal": lambda x: (4 + np.tanh(x)) * 1e-40,
    "inverted": lambda x: -x,
}
"""What makes noise that is higher inside defects hard to rank."""


def random_masks(rng: np.random.Generator) -> np.ndarray:
    """Masks (N, H, W) of a few rectangles and single pixels; a normal image and a normal pixel."""
    images, height, width = rng.integers(2, 9), *rng.integers(4, 25, 2)
    masks = np.zeros((images, height, width), bool)
    for mask in masks[1:]:
        for _ in range(rng.integers(0, 4)):
            top, left = rng.integers(0, height), rng.integers(0, width)
            mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = True
        mask |= rng.random(mask.shape) < rng.choice([0, 0.02])
    masks[1, -1, -1] = True
    masks[0, 0, 0] = False
    return masks


def random_case(seed: int) -> dict[str, float]:
    """How far each metric of a random case is from its reference."""
    rng = np.random.default_rng(seed)
    masks = random_masks(rng)
    shape = rng.choice(list(SHAPES))
    maps = SHAPES[shape](rng.standard_normal(masks.shape) + rng.uniform(0, 3) * masks)
    maps, limit = maps.astype(np.float32), float(rng.choice([0.05, 0.3, 1.0, rng.uniform(0.01, 1)]))
    given = rng.random(len(maps)).astype(np.float32) if rng.random() < 0.3 else None
    found = evaluate_maps(maps, masks, given, fpr_limit=limit, exact=bool(rng.integers(2)))
    scores, labels = maps.max((1, 2)) if given is None else given, masks.any((1, 2))
    expected = expected_metrics(maps, masks, scores, labels, limit)
    return {name: abs(found[name] - value) for name, value in expected.items()}


def expected_metrics(
    maps: np.ndarray, masks: np.ndarray, scores: np.ndarray, labels: np.ndarray, limit: float
) -> dict[str, float]:
    """The seven metrics by scikit-learn and by trying every threshold."""
    pixels, truth = maps.ravel(), masks.ravel()
    return {
        "image_auroc": roc_auc_score(labels, scores),
        "image_auprc": average_precision_score(labels, scores),
        "image_f1max": reference.f1_maximum(scores, labels),
        "pixel_auroc": roc_auc_score(truth, pixels),
        "pixel_auprc": average_precision_score(truth, pixels),
        "pixel_f1max": reference.f1_maximum(pixels, truth),
        "pixel_aupro": reference.aupro(maps, masks, limit),
    }


def main() -> int:
    """Compare as many cases as are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.cases)
    cases = {seed: random_case(seed) for seed in seeds}
    worst = 0.0
    for name in cases[options.seed]:
        seed = max(seeds, key=lambda seed: cases[seed][name])
        worst = max(worst, cases[seed][name])
        sys.stdout.write(f"{name}: {cases[seed][name]:.1e} (case {seed})\n")
    sys.stdout.write(f"largest difference of {options.cases} cases: {worst:.1e}\n")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
