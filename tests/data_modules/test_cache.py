"""The cache gives the pixels that decoding gives, whatever happened to it before."""

import dataclasses
import multiprocessing
import os
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_modules import MVTecAD
from data_modules.problems import DataError
from data_modules.reading import cache as cache_module
from data_modules.reading.cache import DecodedCache, user_cache_dir
from data_modules.reading.images import Decoding
from data_modules.records import Record
from tests import fakes

SIZE = 32
decode = Decoding.__call__
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fakes.write_mvtec(tmp_path / "tree", train=8)


@pytest.fixture
def records(root: Path) -> list[Record]:
    return MVTecAD(root=str(root)).records()


def open_cache(directory: Path, records: list[Record]) -> DecodedCache:
    return DecodedCache(directory, "MVTecAD", records, Decoding(SIZE))


def assert_right_pixels(cache: DecodedCache, records: list[Record]) -> None:
    for record in records:
        for cached, decoded in zip(cache(record), Decoding(SIZE)(record), strict=True):
            assert np.array_equal(cached, decoded)


def folders(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir())


@pytest.mark.parametrize("loader", ["train", "val", "memory", "test", "predict"])
def test_batches_are_identical_with_and_without(root: Path, tmp_path: Path, loader: str) -> None:
    def batches(cache: bool) -> list[dict[str, Any]]:
        data = MVTecAD(
            root=str(root),
            image_size=SIZE,
            resize=40,
            augment=["horizontal_flip", "quarter_turns"],
            batch_size=5,
            num_workers=0,
            cache=cache,
            cache_dir=str(tmp_path / "cache"),
        )
        data.setup("predict" if loader == "predict" else "fit")
        return list(getattr(data, f"{loader}_dataloader")())

    for cached, streamed in zip(batches(True), batches(False), strict=True):
        for key in ("image", "mask", "label", "category"):
            assert torch.equal(cached[key], streamed[key])
            assert cached[key].dtype == streamed[key].dtype
        assert cached["path"] == streamed["path"]


def test_second_start_decodes_nothing(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(tmp_path / "cache", records)

    def refuse(*arguments: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(Decoding, "__call__", refuse)
    monkeypatch.setattr(cache_module, "check_files", refuse)
    open_cache(tmp_path / "cache", records)


def touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def replace(path: Path) -> None:
    image, _ = fakes.defective(77, 48, 48)
    fakes.write(path, image)


@pytest.mark.parametrize("change", [touch, replace])
@pytest.mark.parametrize("which", ["image", "mask"])
def test_what_changes_files_rebuilds(
    tmp_path: Path, records: list[Record], change: Callable[[Path], None], which: str
) -> None:
    open_cache(tmp_path / "cache", records)
    before = folders(tmp_path / "cache")
    record = next(record for record in records if record.label)
    change(record.image if which == "image" else record.masks[0])
    if which == "mask" and change is replace:
        fakes.write(record.masks[0], np.full((48, 48), 255, np.uint8))
    cache = open_cache(tmp_path / "cache", records)
    assert len(set(folders(tmp_path / "cache")) - set(before)) == 1
    assert_right_pixels(cache, records)


def test_size_rule_and_format_have_caches_of_their_own(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for size, rule, version in ((32, "half", 1), (16, "half", 1), (32, "nonzero", 1)):
        monkeypatch.setattr(cache_module, "FORMAT", version)
        cache = DecodedCache(tmp_path, "MVTecAD", records, Decoding(size, rule))  # type: ignore[arg-type]
        names |= {shelf.folder.name for shelf in cache.shelves.values()}
    monkeypatch.setattr(cache_module, "FORMAT", 2)
    names |= {shelf.folder.name for shelf in open_cache(tmp_path, records).shelves.values()}
    assert len(names) == 4 * 4


def test_options_that_change_pixels_have_caches_and_fingerprints_of_their_own(
    root: Path, tmp_path: Path
) -> None:
    def data(**options: Any) -> MVTecAD:
        return MVTecAD(root=str(root), image_size=SIZE, cache_dir=str(tmp_path), **options)

    names, fields = set(), []
    for options in ({}, {"interpolation": "bicubic"}, {"white_level": 4095}):
        module = data(**options)
        module.setup("fit")
        names |= {path.name for path in folders(tmp_path) if path != root}
        fields.append(module.fingerprint_fields())
        record = module.records_of("test")[0]
        image, _ = module._prepare("test")(record)
        assert np.array_equal(image, module.decoding(record)[0])
    assert len(names) == 3 * 4
    assert "interpolation" not in fields[0] and "white_level" not in fields[0]
    assert fields[1]["interpolation"] == "bicubic" and fields[2]["white_level"] == 4095


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interpolation": "lanczos"}, "area, bilinear, bicubic"),
        ({"white_level": 0}, "1 and 65535"),
    ],
)
def test_options_out_of_range_are_named(root: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MVTecAD(root=str(root), **options)


@pytest.mark.parametrize("moment", [1, 5, 11, 20])
def test_killed_build_is_never_read(tmp_path: Path, records: list[Record], moment: int) -> None:
    def build_until_killed() -> None:
        calls = iter(range(1, 1000))

        def load_or_die(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return decode(*arguments)

        Decoding.__call__ = load_or_die  # type: ignore[method-assign]
        open_cache(tmp_path / "cache", records)

    process = FORK.Process(target=build_until_killed)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert any(path.suffix == ".partial" for path in folders(tmp_path / "cache"))
    assert_right_pixels(open_cache(tmp_path / "cache", records), records)
    assert not any(path.suffix == ".partial" for path in folders(tmp_path / "cache"))


def test_two_processes_build_once(tmp_path: Path, records: list[Record]) -> None:
    log = tmp_path / "decoded"
    barrier = FORK.Barrier(2)

    def build() -> None:
        def load_and_note(self: Decoding, record: Record) -> tuple[np.ndarray, np.ndarray]:
            with log.open("a") as file:
                file.write(f"{record.image}\n")
            return decode(self, record)

        Decoding.__call__ = load_and_note  # type: ignore[method-assign]
        barrier.wait(60)
        cache = open_cache(tmp_path / "cache", records)
        Decoding.__call__ = decode  # type: ignore[method-assign]
        assert_right_pixels(cache, records)

    processes = [FORK.Process(target=build) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == sorted(str(record.image) for record in records)


@pytest.mark.parametrize("file", ["images.npy", "masks.npy"])
@pytest.mark.parametrize("damage", ["cut", "empty", "removed", "other shape", "64 bytes"])
def test_damaged_cache_is_rebuilt(
    tmp_path: Path, records: list[Record], file: str, damage: str
) -> None:
    cache = open_cache(tmp_path / "cache", records)
    path = next(shelf.folder for shelf in cache.shelves.values() if shelf.masked) / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "64 bytes":
        content = bytearray(path.read_bytes())
        for place in range(200, 200 + 64 * 7, 7):
            content[place] ^= 0x10
        path.write_bytes(content)
    elif damage == "removed":
        path.unlink()
    else:
        np.save(path, np.zeros((2, 3), np.uint8))
    assert_right_pixels(open_cache(tmp_path / "cache", records), records)


def test_may_be_removed(tmp_path: Path, records: list[Record]) -> None:
    open_cache(tmp_path / "cache", records)
    shutil.rmtree(tmp_path / "cache")
    assert_right_pixels(open_cache(tmp_path / "cache", records), records)


def test_broken_files_are_all_named_and_leave_nothing_behind(
    tmp_path: Path, records: list[Record]
) -> None:
    broken = [record.image for record in records[::5]]
    for image in broken:
        data = bytearray(image.read_bytes())
        data[len(data) // 2] ^= 0x55  # complete to its end, but not decodable
        image.write_bytes(data)
    with pytest.raises(DataError) as error:
        open_cache(tmp_path / "cache", records)
    assert all(str(image) in str(error.value) for image in broken)
    assert not any(path.suffix == ".partial" for path in folders(tmp_path / "cache"))


def test_a_full_disk_is_said_before_writing(
    tmp_path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type(shutil.disk_usage("/"))(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(DataError, match=r"GB are free.*data\.cache_dir.*data\.cache"):
        open_cache(tmp_path / "cache", records)
    assert not folders(tmp_path / "cache")


def test_size_is_announced(
    tmp_path: Path, records: list[Record], capsys: pytest.CaptureFixture[str]
) -> None:
    DecodedCache(tmp_path / "cache", "MVTecAD", records, Decoding(1000))
    expected = len(records) * 3 * 1000**2 + sum(record.label for record in records) * 1000**2
    announced = capsys.readouterr().err
    assert f"writing {expected / 1e6:,.0f} MB below {tmp_path / 'cache'}" in announced
    written = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    assert expected <= written < expected + 10_000


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, records: list[Record]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be kept in .*file/cache.*data\.cache_dir"):
        open_cache(tmp_path / "file" / "cache", records)


def test_workers_are_sent_paths_not_pixels(tmp_path: Path, records: list[Record]) -> None:
    cache = open_cache(tmp_path / "cache", records)
    cache(records[0])
    sent = pickle.dumps(cache)
    assert len(sent) < 20_000
    assert_right_pixels(pickle.loads(sent), records)


def test_default_place_follows_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache_dir() == tmp_path / "lightning_ad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_dir() == Path.home() / ".cache" / "lightning_ad"


def test_reads_of_a_cached_image_are_private(tmp_path: Path, records: list[Record]) -> None:
    cache = open_cache(tmp_path / "cache", records)
    image, mask = cache(records[0])
    image[:] = 0
    mask[:] = 1
    assert_right_pixels(cache, records)


@pytest.mark.parametrize("name", ["screw[left]", "[/left]"])
def test_a_category_like_markup_is_decoded(
    records: list[Record], tmp_path: Path, name: str
) -> None:
    named = [dataclasses.replace(record, category=name) for record in records]
    cache = open_cache(tmp_path / "cache", named)
    assert cache(named[0])[0].shape == (SIZE, SIZE, 3)
