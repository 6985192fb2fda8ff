"""The doctor finds images that repeat training images, and is calm where images are only alike."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_modules import MVTecAD
from data_modules.doctor.command import main
from data_modules.doctor.likeness import spectra
from data_modules.neighbour import auroc, neighbour_auroc, neighbour_distances
from tests import fakes

SIDE = 256


def field(seed: int, grain: float, side: int = SIDE) -> np.ndarray:
    """Smooth noise with mean 0 and deviation 1."""
    noise = np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    return (smooth - smooth.mean()) / smooth.std()


def bottle(seed: int) -> np.ndarray:
    """Always the same rings at the same place; only the reflections in them differ."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    radius = np.hypot(x, y)
    rings = 220 - 150 * ((radius < 110) & (radius > 80)) - 60 * (radius < 50)
    return clipped(rings + 6 * field(seed, 7) + np.random.default_rng(seed).normal(0, 2, x.shape))


def screw(seed: int) -> np.ndarray:
    """Always the same threaded rod, turned by an angle of its own, on a grey gradient."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    angle = np.random.default_rng(seed).uniform(0, np.pi)
    along, across = (
        x * np.cos(angle) + y * np.sin(angle),
        y * np.cos(angle) - x * np.sin(angle),
    )
    rod = (abs(across) < 16 + 5 * np.sin(along / 2)) & (abs(along) < 96)
    return clipped(180 + x / 8 - 110 * rod + 4 * field(seed, 5))


def tile(seed: int, exposure: int) -> np.ndarray:
    """A brushed, stained surface, brighter at each exposure and never quite at the same place."""
    brushed = cv2.GaussianBlur(field(seed, 2), (0, 0), 1, sigmaY=15)
    surface = 0.1 * brushed / brushed.std() + 0.2 * field(seed + 1000, 12)
    moved = np.roll(surface, (exposure % 3 - 1, exposure % 2), axis=(0, 1))
    light = 30 + 15 * exposure + 0.1 * np.arange(SIDE)
    noise = np.random.default_rng([seed, exposure]).normal(0, 1, surface.shape)
    return clipped(light * (1 + moved) + noise)


def clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def write_parts(root: Path, draw: Callable[[int], np.ndarray]) -> Path:
    """40 training, 10 good and 10 defective images of a part, in MVTec AD's tree."""
    for place, part in enumerate(("train/good", "test/good", "test/dent")):
        for index in range(40 if place == 0 else 10):
            image = draw(100 * place + index)
            if part == "test/dent":
                spot = (60 + 8 * index, 100)
                cv2.circle(image, spot, 9, 0, -1)
                mask = cv2.circle(np.zeros_like(image), spot, 9, 255, -1)
                fakes.write(root / f"part/ground_truth/dent/{index:03d}_mask.png", mask)
            fakes.write(root / "part" / part / f"{index:03d}.png", image)
    return root


def write_tiles(root: Path) -> Path:
    """20 good and 10 cracked tiles in six exposures; the list trains on five of each good one."""
    listed = []
    for number in range(30):
        for exposure in range(1, 7):
            name = f"exp{exposure}_num_{1000 * (number + 1) + 20 * exposure}"
            image, folder = tile(number, exposure), root / "MT_Free" / "Imgs"
            mask = np.zeros_like(image)
            if number >= 20:
                folder = root / "MT_Crack" / "Imgs"
                for canvas, value in ((image, 0), (mask, 255)):
                    cv2.line(canvas, (50, 60), (100, 140 + number), value, 4)
            elif exposure != number % 6 + 1:
                listed.append(f"{name}.jpg")
            fakes.write(folder / f"{name}.jpg", image)
            fakes.write(folder / f"{name}.png", mask)
    (root / "mtd_train_filenames.txt").write_text("\n".join(listed))
    return root


def diagnose(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def doctor_parts(capsys: pytest.CaptureFixture[str], root: Path) -> tuple[int, dict[str, Any]]:
    return diagnose(capsys, "--data=MVTecAD", f"--data.root={root}")


def repeats(content: dict[str, Any], kind: str = "test image repeats training") -> list[str]:
    return [note["path"] + note["detail"] for note in content["notes"] if note["kind"] == kind]


@pytest.mark.parametrize("draw", [bottle, screw])
def test_parts_that_are_only_alike_are_clean(
    draw: Callable[[int], np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, content = doctor_parts(capsys, write_parts(tmp_path / "tree", draw))
    assert status == 0
    assert not repeats(content)
    assert not repeats(content, "held-out image repeats training")
    (leaks,) = content["leaks"]
    assert leaks["good"] == leaks["defective"] == {"repeat": 0, "of": 10}
    assert leaks["held_out"] == {"repeat": 0, "of": 4}
    assert not leaks["leak"]


def encoded(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)


PLANTED = {
    "resized": lambda image: cv2.resize(image, None, fx=0.6, fy=0.6),
    "enlarged": lambda image: cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
    "re-encoded": encoded,
    "darker": lambda image: clipped(0.7 * image),
    "brighter": lambda image: clipped(0.8 * image + 40.0),
    "shifted": lambda image: cv2.copyMakeBorder(image, 2, 0, 0, 2, cv2.BORDER_REFLECT)[:-2, 2:],
}


@pytest.mark.parametrize("draw", [bottle, screw])
def test_planted_copies_are_found(
    draw: Callable[[int], np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_parts(tmp_path / "tree", draw)
    planted = {}
    for index, (change, edit) in enumerate(PLANTED.items()):
        original = root / f"part/train/good/{6 * index:03d}.png"
        copy = root / f"part/test/good/{index:03d}.png"
        fakes.write(copy, edit(cv2.imread(str(original), 0)))
        planted[change] = {str(copy), str(original)}
    status, content = doctor_parts(capsys, root)
    found = repeats(content)
    for change, files in planted.items():
        assert any(all(file in line for file in files) for line in found), change
    assert len(found) == len(planted)
    assert [problem["kind"] for problem in content["problems"]] == ["leak"]
    assert "6 of 10 good test images but 0 of 10 defective" in content["problems"][0]["detail"]
    assert status == 1


def test_copies_among_good_and_defective_images_alike_are_no_leak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_parts(tmp_path / "tree", bottle)
    for index, kind in enumerate(("good", "dent")):
        image = cv2.imread(str(root / f"part/train/good/{index:03d}.png"), 0)
        fakes.write(root / f"part/test/{kind}/003.png", clipped(0.8 * image))
    status, content = doctor_parts(capsys, root)
    assert status == 0
    assert len(repeats(content)) == 2
    (leaks,) = content["leaks"]
    assert leaks["good"] == leaks["defective"] == {"repeat": 1, "of": 10}


def test_held_out_images_that_repeat_training_images_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_parts(tmp_path / "tree", screw)
    data = MVTecAD(root=str(root))
    held_out, trained = data.held_out_records()[0].image, data.training_records()[0].image
    fakes.write(held_out, clipped(0.8 * cv2.imread(str(trained), 0)))
    status, content = doctor_parts(capsys, root)
    assert status == 0
    (line,) = repeats(content, "held-out image repeats training")
    assert str(held_out) in line and str(trained) in line


def test_the_published_split_of_tiles_leaks_and_that_by_tiles_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiles(tmp_path / "tree")
    status, content = diagnose(capsys, "--data=MTD", f"--data.root={root}")
    assert status == 1
    assert [problem["kind"] for problem in content["problems"]] == ["leak"]
    (published,) = content["leaks"]
    assert published["good"] == {"repeat": 20, "of": 20}
    assert published["defective"] == {"repeat": 0, "of": 60}
    assert published["held_out"]["repeat"] == 0
    assert published["leak"] and "wrong reason" in published["verdict"]
    assert published["neighbour_auroc"] > 0.95

    (root / "mtd_train_filenames.txt").unlink()
    status, content = diagnose(capsys, "--data=MTD", f"--data.root={root}", "--data.split=tiles")
    assert status == 0
    (tiles,) = content["leaks"]
    assert tiles["good"]["repeat"] == tiles["held_out"]["repeat"] == 0
    assert not tiles["leak"]
    assert tiles["neighbour_auroc"] < published["neighbour_auroc"]


def test_the_table_shows_counts_and_the_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tiles(tmp_path / "tree")
    assert main(["--data=MTD", f"--data.root={root}"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "20 of 20" in shown and "0 of 60" in shown and "wrong" in shown


def test_unreadable_images_do_not_stop_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_parts(tmp_path / "tree", bottle)
    for name in ("train/good/000.png", "test/good/001.png"):
        (root / "part" / name).write_bytes(b"\x89PNG")
    _, content = doctor_parts(capsys, root)
    assert content["leaks"][0]["good"]["of"] == 9
    for image in (root / "part/train/good").iterdir():
        image.write_bytes(b"\x89PNG")
    _, content = doctor_parts(capsys, root)
    assert content["leaks"][0]["neighbour_auroc"] is None


def test_the_trivial_neighbour_is_its_definition() -> None:
    generator = np.random.default_rng(0)
    training, images = (generator.integers(0, 256, (n, 64, 64), dtype=np.uint8) for n in (7, 5))

    def standardised(image: np.ndarray) -> np.ndarray:
        small = cv2.resize(image.astype(np.float32), (16, 16), interpolation=cv2.INTER_AREA)
        return (small - small.mean()) / small.std()

    expected = [
        min(np.sqrt(np.mean((standardised(image) - standardised(one)) ** 2)) for one in training)
        for image in images
    ]
    assert neighbour_distances(training, images) == pytest.approx(expected, abs=1e-4)
    brighter = (training // 2 + 90).astype(np.uint8)
    assert neighbour_distances(training, brighter).max() < 0.02


def test_the_neighbours_figure_is_that_of_a_data_set(tmp_path: Path) -> None:
    root = write_parts(tmp_path / "tree", screw)
    for index in range(10):
        fakes.write(root / f"part/test/good/{index:03d}.png", screw(index))
    assert neighbour_auroc(MVTecAD(root=str(root))) == {"part": 1.0}
    for index in range(5):
        fakes.write(root / f"part/test/good/{index:03d}.png", bottle(index))
    assert neighbour_auroc(MVTecAD(root=str(root))) == {"part": 0.5}


def test_a_shift_changes_spectra_little_even_where_borders_differ() -> None:
    def crop(seed: int, by: int) -> np.ndarray:
        side = 96
        wide = 128 + 25 * field(seed, 4, side) + np.arange(side) - side / 2
        return clipped(wide[by : by + 64, by : by + 64])

    one, moved, other = spectra(np.stack([crop(0, 0), crop(0, 2), crop(1, 0)]))
    assert np.linalg.norm(one - moved) < 0.4 * np.linalg.norm(one - other)


def test_auroc_counts_ties_half() -> None:
    scores = np.array([0.1, 0.4, 0.4, 0.4, 0.9])
    assert auroc(scores, [0, 0, 1, 1, 1]) == pytest.approx((2 * 1.5 + 2) / 6)
    assert auroc(scores, [0] * 5) is None
    assert auroc(scores, [1] * 5) is None
