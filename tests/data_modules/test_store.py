"""What is written is whole or not there; arrays are computed once and read by everybody."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data_modules.problems import DataError
from data_modules.reading.store import mapped, stored_rows, written_whole

FORK = multiprocessing.get_context("fork")
ROWS = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float16)


def write_file(path: Path, text: str) -> None:
    path.write_text(text)


def write_folder(path: Path, text: str) -> None:
    path.mkdir()
    (path / "inside").write_text(text)


def content(path: Path) -> str:
    return (path / "inside" if path.is_dir() else path).read_text()


KINDS = pytest.mark.parametrize("write", [write_file, write_folder])


@KINDS
def test_a_failure_keeps_what_was_there(tmp_path: Path, write: Callable[[Path, str], None]) -> None:
    path = tmp_path / "new" / "name"
    with written_whole(path) as partial:
        write(partial, "first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), written_whole(path) as partial:
        write(partial, "second")
        raise KeyboardInterrupt
    assert content(path) == "first"
    assert list(path.parent.iterdir()) == [path]
    with written_whole(path) as partial:
        write(partial, "third")
    assert content(path) == "third"


@KINDS
def test_what_a_killed_process_leaves_is_replaced(
    tmp_path: Path, write: Callable[[Path, str], None]
) -> None:
    def die() -> None:
        with written_whole(tmp_path / "name") as partial:
            write(partial, "half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=die)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "name").exists() and len(list(tmp_path.iterdir())) == 1
    with written_whole(tmp_path / "name") as partial:
        write(partial, "whole")
    assert content(tmp_path / "name") == "whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_links_stay_and_pipes_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    with written_whole(tmp_path / "link") as partial:
        partial.write_text("through the link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "through the link"
    with written_whole(Path("/dev/null")) as partial:
        partial.write_text("nowhere")
    assert Path("/dev/null").is_char_device()


def read(path: Path, rows: int = 7, calls: list[int] | None = None) -> np.ndarray:
    def batches() -> Iterator[np.ndarray]:
        if calls is not None:
            calls.append(1)
        yield ROWS[:4]
        yield ROWS[4:rows]

    return stored_rows(path, rows, batches, "features", "set data.cache_dir")


def test_rows_are_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []
    for _ in range(2):
        found = read(tmp_path / "cache" / "rows.npy", calls=calls)
        assert found.dtype == np.float16
        assert np.array_equal(found, ROWS)
    assert len(calls) == 1


def flip(data: bytes, start: int, count: int, step: int = 1) -> bytes:
    """The same bytes, some of them with every bit turned."""
    changed = bytearray(data)
    for place in range(start, start + count * step, step):
        changed[place] ^= 0xFF
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: b"no array" + data[8:],
        lambda data: flip(data, 128, 1),
        lambda data: flip(data, 128, 64),  # whole words, whose sum would stay the same
        lambda data: flip(data, len(data) - 1, 1),
        lambda data: data[: 128 + ROWS.nbytes],  # of before there were checksums
        lambda data: data[:128] + data[134:140] + data[128:134] + data[140:],
    ],
)
def test_damaged_rows_are_written_again(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.npy"
    read(path)
    path.write_bytes(damage(path.read_bytes()))
    assert mapped(path) is None
    assert np.array_equal(read(path), ROWS)
    assert "rows.npy is damaged" in caplog.text
    assert np.array_equal(np.load(path), ROWS)  # any other program may read it
    assert np.array_equal(read(path, rows=5), ROWS[:5])  # another number is damage, too


def test_a_full_disk_is_said_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match=r"features need 0\.00 GB.*set data\.cache_dir"):
        read(tmp_path / "rows.npy")
    assert not any(path.suffix in (".npy", ".partial") for path in tmp_path.iterdir())
