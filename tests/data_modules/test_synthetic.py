"""The embedded data set is always the same, honest, and exactly marked."""

import hashlib
import multiprocessing
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from data_modules import SyntheticTextures
from data_modules.defects import SIDE, paste_defect
from data_modules.reading.images import read_image, read_mask
from data_modules.synthetic import TEST_BAND, write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("textures") / "tree"
    write_tree(root)
    return root


def digest(root: Path) -> str:
    content = hashlib.sha256()
    for path in sorted(root.rglob("*.png")):
        content.update(path.relative_to(root).as_posix().encode())
        content.update(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).tobytes())
    return content.hexdigest()


def place_in_photograph(crop: np.ndarray, photograph: np.ndarray) -> tuple[int, int]:
    """Row and column at which the crop matches the photograph best."""
    match = cv2.matchTemplate(photograph, crop, cv2.TM_SQDIFF)
    row, column = np.unravel_index(match.argmin(), match.shape)
    return int(row), int(column)


def test_counts_are_the_stated_ones(tree: Path) -> None:
    data = SyntheticTextures(root=str(tree))
    assert data.categories == ["brick", "grass", "gravel"]
    found = Counter((record.category, record.split, record.label) for record in data.records())
    for category, counts in data.published.items():
        assert found[category, "train", 0] == counts.train
        assert found[category, "test", 0] == counts.good
        assert found[category, "test", 1] == counts.defective


def test_written_tree_is_always_the_same(tree: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(tree)


def test_default_root_is_written_once_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = SyntheticTextures()
    assert not data.root.exists()
    assert len(data.records()) == 630
    assert tmp_path / "lightning_ad" in data.root.parents
    image = data.records()[0].image
    written = image.stat().st_mtime_ns
    assert len(SyntheticTextures().records()) == 630
    assert image.stat().st_mtime_ns == written


def test_training_and_test_crops_come_from_disjoint_regions(tree: Path) -> None:
    photograph = skimage.data.gravel()
    left, right = TEST_BAND
    for part in ("train", "test"):
        for path in sorted((tree / "gravel" / part / "good").iterdir())[:20]:
            crop = read_image(path)[..., 0]
            row, column = place_in_photograph(crop, photograph)
            assert np.array_equal(photograph[row : row + SIDE, column : column + SIDE], crop)
            inside = left <= column and column + SIDE <= right
            outside = column + SIDE <= left or column >= right
            assert inside if part == "test" else outside


def test_defects_change_their_mask_and_nothing_else(tree: Path) -> None:
    scales = {}
    for folder in sorted((tree / "brick" / "test").iterdir()):
        if folder.name == "good":
            continue
        areas = []
        for path in folder.iterdir():
            image = read_image(path)[..., 0]
            mask = read_mask(tree / "brick/ground_truth" / folder.name / f"{path.stem}_mask.png")
            outside = (1 - mask).astype(np.float32)
            photograph = skimage.data.brick().astype(np.float32)
            match = cv2.matchTemplate(
                photograph, image.astype(np.float32), cv2.TM_SQDIFF, mask=outside
            )
            row, column = np.unravel_index(match.argmin(), match.shape)
            normal = photograph[row : row + SIDE, column : column + SIDE]
            changed = normal != image
            assert not changed[mask == 0].any()
            assert changed[mask == 1].mean() > 0.9
            areas.append(mask.mean())
        scales[folder.name] = np.mean(areas)
    assert max(scales["specks"], scales["scratch"]) < scales["blob"]
    assert scales["blob"] * 3 < min(scales["missing"], scales["swapped"])


def test_processes_that_start_together_write_it_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=write_tree, args=(tmp_path / "tree",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["tree"]
    assert len(list((tmp_path / "tree").rglob("*.png"))) == 630 + 90


def test_a_defect_can_be_pasted_on_any_image() -> None:
    normal = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for seed in range(10):
        image, mask = paste_defect(normal, "bottle", np.random.default_rng(seed))
        assert 0 < mask.sum() < mask.size / 2
        assert np.array_equal(image[mask == 0], normal[mask == 0])
        assert (image[mask == 1] != normal[mask == 1]).any()
