"""Photographs that arrive while a folder is watched: each once, whole, whatever else lies there."""

import pytest

from data_modules import Folder, MVTecAD
from data_modules.problems import DataError
from data_modules.reading import watch
from tests.fakes import texture, write


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(watch, "PAUSE", 0.0)


def watched(root, known=()):
    data = Folder(root=str(root), image_size=16, batch_size=2, num_workers=0)
    arrivals = data.watch(set(known))
    data.setup("predict")
    return arrivals, iter(data.predict_dataloader())


def names(batch):
    return [path.rpartition("/")[2] for path in batch["path"]]


def test_images_come_when_they_arrive_and_only_once(tmp_path):
    write(tmp_path / "a.png", texture(0, 20, 30))
    arrivals, batches = watched(tmp_path)
    first = next(batches)
    assert names(first) == ["a.png"] and first["size"].tolist() == [[20, 30]]
    for name in ("b.png", "c.png", "inner/d.png"):
        write(tmp_path / name, texture(1, 20, 30))
    assert names(next(batches)) == ["b.png", "c.png"]
    assert names(next(batches)) == ["d.png"]
    arrivals.stop()
    assert list(batches) == []


def test_images_of_before_are_left_alone(tmp_path):
    for name in ("a.png", "b.png"):
        write(tmp_path / name, texture(0, 20, 30))
    _, batches = watched(tmp_path, known=[str(tmp_path / "a.png")])
    assert names(next(batches)) == ["b.png"]


def test_a_file_is_read_when_it_grows_no_more_and_a_broken_one_when_it_changes(tmp_path, caplog):
    write(tmp_path / "whole.png", texture(0, 20, 30))
    content = (tmp_path / "whole.png").read_bytes()
    slow, looks = tmp_path / "slow.png", []
    arrivals, batches = watched(tmp_path)
    images = arrivals._images

    def grow():
        looks.append(1)
        if len(looks) < 20:  # the camera writes on, then the network hangs for five looks
            slow.write_bytes(content[: 10 * len(looks)])
        elif len(looks) == 25:
            slow.write_bytes(content)
        return images()

    arrivals._images = grow
    assert names(next(batches)) == ["whole.png"]
    assert names(next(batches)) == ["slow.png"]
    assert len(looks) >= 26 and caplog.text.count("slow.png") == 1


def test_an_empty_folder_is_watched_and_no_folder_is_refused(tmp_path):
    arrivals, batches = watched(tmp_path)
    arrivals.stop()
    assert list(batches) == []
    with pytest.raises(DataError, match="no folder that could be watched"):
        Folder(root=str(tmp_path / "none")).watch(set())
    with pytest.raises(DataError, match="MVTecAD cannot be watched: give --data Folder"):
        MVTecAD(root=str(tmp_path)).watch(set())
