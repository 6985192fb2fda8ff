"""Every image has one picture of its own, and a picture that cannot be written is an error."""

import os
from pathlib import Path, PurePath

import cv2
import numpy as np
import pytest

from lightning_ad.reports.drawing import Picture, scale_of
from lightning_ad.reports.panel import Heading, panel
from lightning_ad.reports.pictures import flat_name, picture_name, write_picture

NAMES = [
    *("a.jpg", "a.jpg.png", "a.jpg.png.png", "a.png", "a.PNG", "a.bmp", "a.webp", "b.c.png"),
    *(f"{'n' * 249}.jpg", f"{'n' * 249}.png", f"{'n' * 251}.jpg", f"{'n' * 248}ü.jpg"),
    os.fsdecode(b"K\xe4fer.png"),
    os.fsdecode(b"K\xf6fer.png"),
]


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_different_images_have_different_pictures(tmp_path: Path, suffix: str) -> None:
    names = [picture_name(PurePath("deep", name), suffix).name for name in NAMES]
    assert len(set(names)) == len(NAMES)
    for name in names:
        assert name.endswith(suffix)
        (tmp_path / name).touch()  # which refuses names that are too long
    assert picture_name(PurePath("x/a.png")) == PurePath("x/a.png")


def test_pictures_in_one_folder_are_told_apart(tmp_path: Path) -> None:
    names = [
        "test/good/a.png",
        "a/b_c.png",
        "a_b/c.png",
        "a/b/c.png",
        f"{'s' * 90}/{'u' * 90}/{'v' * 90}.png",
    ]
    names.append(names[-1].replace("v.png", "w.png"))
    flat = [flat_name(PurePath(name)) for name in names]
    assert flat[0] == PurePath("test_good_a.png") and len(set(flat)) == len(names)
    for name in flat:
        (tmp_path / name).touch()


@pytest.mark.parametrize("name", ["a.png", os.fsdecode(b"K\xe4fer.png"), "日本.png"])
def test_any_name_of_a_file_can_be_drawn_and_written(tmp_path: Path, name: str) -> None:
    tile = np.full((20, 30, 3), 90, np.uint8)
    nothing = np.zeros((20, 30), np.uint8)
    map_ = np.zeros((20, 30), np.float32)
    drawn = panel(
        Picture(tile, map_, scale_of(None, map_), nothing), Heading(name, 1.0, None, None)
    )
    write_picture(tmp_path / "deep" / name, drawn)
    data = np.frombuffer((tmp_path / "deep" / name).read_bytes(), np.uint8)
    assert np.array_equal(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], drawn)


@pytest.mark.parametrize("error", ["No space left on device", "Read-only file system"])
def test_a_picture_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    def fails(self: Path, data: bytes) -> None:
        self.touch()
        raise OSError(28, error)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match=rf"picture .*a\.png cannot be written: {error}"):
        write_picture(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert not (tmp_path / "a.png").exists()
