"""The makers of tall and of large photographs, where the published ones are at hand."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.scenes import write_scenes, write_tall

MTD, MVTEC = (os.environ.get(name, "") for name in ("MTD_ROOT", "MVTEC_ROOT"))


def pixels(file):
    return cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)


@pytest.mark.skipif(not MTD, reason="needs MTD_ROOT")
def test_tall_strips_are_of_photographs_as_they_are(tmp_path):
    root = write_tall(tmp_path, Path(MTD), 1, 1, 2)
    assert pixels(root / "train/good/000.png").shape == (960, 224)
    for file in sorted((root / "ground_truth/defect").iterdir()):
        thirds = [part.any() for part in np.split(pixels(file), 3)]
        assert sum(thirds) == 1
    again = write_tall(tmp_path / "again", Path(MTD), 1, 1, 2)
    for one in ("test/good/000.png", "test/defect/001.png"):
        assert (root / one).read_bytes() == (again / one).read_bytes()


@pytest.mark.skipif(not MVTEC, reason="needs MVTEC_ROOT")
def test_scenes_show_small_screws_one_of_them_marked(tmp_path):
    root = write_scenes(tmp_path, Path(MVTEC) / "screw", 1, 1, 2)
    image, mask = (pixels(root / part / "defect/000.png") for part in ("test", "ground_truth"))
    assert image.shape == mask.shape == (1280, 1280)
    assert 0 < (mask > 0).sum() < 160 * 160 / 4
    assert image[mask > 0].mean() < np.median(image) - 20  # it lies on a screw
