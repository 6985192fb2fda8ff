"""Text files as editors save them, numbers as OmegaConf reads them, and files that are traps."""

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from data_modules.problems import DataError
from data_modules.reading.layout import file_below
from data_modules.reading.texts import parse_yaml, read_json, read_table, read_text, read_yaml

READERS = [read_text, read_yaml, read_json, read_table]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("encoding", "named"),
    [("latin-1", "Latin-1"), ("cp1252", "Windows-1252"), ("utf-16", "UTF-16")],
)
def test_another_encoding_is_named_with_its_file(
    tmp_path: Path, read: Callable[[Path], Any], encoding: str, named: str
) -> None:
    (tmp_path / "part.txt").write_bytes("a: 1\n# für Teil 7".encode(encoding))
    with pytest.raises(DataError, match=rf"part\.txt is not UTF-8.*{named}.*line \d.*UTF-8"):
        read(tmp_path / "part.txt")


def test_a_mark_in_front_of_utf_8_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfname: f\xc3\xbcr")
    assert read_yaml(tmp_path / "a.yaml") == {"name": "für"}
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfname,b\nf\xc3\xbcr\n")
    assert read_table(tmp_path / "a.csv") == (["name", "b"], [{"name": "für", "b": ""}])


WORDS = (
    "1e-4 1E5 -1e-2 1.5e3 .5 -.5 1. 1_000 0x1F 010 1:30 .inf -.INF .5e-3 .5e3 2024-01-01 yes on "
    "null ~ 1e 1.2.3 e5 1e+3 12 -7 01 '1e-4' 1e-4s"
)


@pytest.mark.parametrize("word", WORDS.split())
def test_values_are_those_that_omegaconf_reads(word: str) -> None:
    theirs = OmegaConf.load(io.StringIO(f"a: {word}"))["a"]
    assert repr(parse_yaml(f"a: {word}", "x")["a"]) == repr(theirs)
    assert math.isnan(parse_yaml("a: .nan", "x")["a"])


def bomb(levels: int) -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "unfolds to more than"),
        ("a: &a [*a]", "holds itself"),
        ("&a {b: *a}", "holds itself"),
        ("{a: " * 60 + "1" + "}" * 60, "deeper than 50"),
        ("[" * 3000, "deeper than 50"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [1", "no readable YAML"),
    ],
)
def test_a_trap_is_an_error_of_one_line(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        parse_yaml(text, "own.yaml")
    assert str(error.value).startswith("own.yaml") and "\n" not in str(error.value)


def test_repetition_that_stays_small_is_read() -> None:
    text = "a: &a {x: 1}\nb:\n  <<: *a\n  y: 2\nc: [*a, *a]"
    found = parse_yaml(text, "own.yaml")
    assert found["b"] == {"x": 1, "y": 2} and found["c"] == [{"x": 1}] * 2


def test_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "absent"):
        with pytest.raises(DataError, match="not a file"):
            read_text(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["../x.png", "a/../../x.png", "/etc/passwd", r"C:\x.png", r"..\x.png", r"\\host\x.png", "a\0b"],
)
def test_lists_name_nothing_outside_of_their_root(name: str) -> None:
    with pytest.raises(DataError, match=r"list\.csv names .* not below root"):
        file_below(Path("root"), name, "list.csv")


@pytest.mark.parametrize("name", ["a.png", "./a/b.png", "a/../b.png", "a..b/..c.png"])
def test_lists_may_name_what_is_inside(name: str) -> None:
    assert file_below(Path("root"), name, "list.csv") == Path("root") / name
