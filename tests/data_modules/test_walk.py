"""What lies in people's folders: thumbnails of servers, links that go round, trees without end."""

from pathlib import Path

import pytest

from data_modules.reading.walk import folders_below, images_below, images_in, inner_folder


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.mark.parametrize(
    "left", ["@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".cache", "@EADIR"]
)
def test_what_systems_leave_is_skipped(tmp_path: Path, left: str) -> None:
    own = put(tmp_path / "a.png")
    put(tmp_path / left / "a.png" / "THUMB.png")
    put(tmp_path / left / "b.png")
    put(tmp_path / "._a.png")
    assert list(images_below(tmp_path)) == [own]


def test_links_upwards_and_aside_are_walked_once(tmp_path: Path) -> None:
    images = [put(tmp_path / "part" / name) for name in ("train/1.png", "train/day/2.png")]
    put(tmp_path / "part/test/3.png")
    train = tmp_path / "part/train"
    (train / "latest").symlink_to("..")
    (train / "self").symlink_to(".")
    (train / "twice").symlink_to("day")
    (train / "day/back").symlink_to(train)
    assert list(images_below(train)) == images


def test_links_to_other_places_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/1.png")
    put(tmp_path / "top/.hidden/2.png")
    (tmp_path / "top/a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top/c").symlink_to(tmp_path / "top/.hidden")
    found = [path.relative_to(tmp_path).as_posix() for path in images_below(tmp_path / "top")]
    assert found == ["top/a/1.png", "top/c/2.png"]


def test_a_tree_may_be_deeper_than_python_recurses(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    for _ in range(1200):
        folder.mkdir()
        folder /= "d"
    image = put(folder.parent / "x.png")
    folders = list(folders_below(tmp_path))
    assert len(folders) == 1201 and list(images_below(tmp_path)) == [image]
    image.unlink()
    for folder in reversed(folders[1:]):  # pytest would recurse to remove them
        folder.rmdir()


def test_folders_are_found_in_any_case(tmp_path: Path) -> None:
    put(tmp_path / "Ground_Truth/x.png")
    assert images_in(inner_folder(tmp_path, "ground_truth"))
    assert inner_folder(tmp_path, "absent") == tmp_path / "absent"
