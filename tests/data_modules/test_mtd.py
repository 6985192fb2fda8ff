"""A tile's photographs stay on one side, and those of a specimen are held out together."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from data_modules import MTD, DataError, RealIAD
from data_modules.mtd_tiles import tiles_of, tiles_to_test
from tests import fakes

TILES = {
    # one tile in six exposures
    "exp1_num_5000": "a",
    "exp2_num_5020": "a",
    "exp3_num_5040": "a",
    "exp4_num_5230": "a",
    "exp5_num_5300": "a",
    "exp6_num_5800": "a",  # far, but the exposure rises
    # another, as it falls
    "exp1_num_6100": "b",
    # out of order, but close
    "exp5_num_6200": "b",
    "exp2_num_6210": "b",
    # far, though the exposure rises
    "exp3_num_7000": "c",
    # one photographed twice
    "exp1_num_53011": "d",
    "exp2_num_53025": "d",
    "exp1_num_65001": "d",
    # one that only looks like it
    "exp1_num_66001": "e",
}


def test_tiles_are_runs_of_numbers() -> None:
    tiles = tiles_of(list(reversed(TILES)))
    for one, other in combinations(TILES, 2):
        assert (tiles[one] == tiles[other]) == (TILES[one] == TILES[other]), (one, other)
    assert tiles["exp4_num_5230"] == "exp1_num_5000"
    assert tiles_of(["photo", "other", "exp1_num_0"]) == {
        "photo": "photo",
        "other": "other",
        "exp1_num_0": "exp1_num_0",
    }


def test_as_many_test_as_published_where_tiles_allow_it() -> None:
    sizes = [6] * 20 + [5, 3, 12, 2, 7]
    good = {f"{tile}-{i}": f"tile{tile}" for tile, size in enumerate(sizes) for i in range(size)}
    tested = tiles_to_test(good, ["tile3", "elsewhere"])
    assert {"tile3", "elsewhere"} <= tested
    assert sum(tile in tested for tile in good.values()) == round(len(good) * 191 / 952)
    assert tested == tiles_to_test(dict(reversed(good.items())), ["elsewhere", "tile3"])
    assert tiles_to_test({"a": "one", "b": "two"}, ["one"]) == {"one"}


def test_split_by_tiles_keeps_each_on_one_side(tmp_path: Path) -> None:
    data = MTD(root=str(fakes.write_mtd(tmp_path / "tree", train=40, good=10)), split="tiles")
    parts = (data.training_records(), data.held_out_records(), data.records_of("test"))
    for one, other in combinations(parts, 2):
        assert {r.specimen for r in one}.isdisjoint(r.specimen for r in other)
    assert Counter((r.split, r.label) for r in data.records()) == {
        ("train", 0): 40,
        ("test", 0): 10,
        ("test", 1): 5,
    }
    assert len(data.held_out_records()) == 4


def test_a_tile_with_a_defect_tests(tmp_path: Path) -> None:
    root = fakes.write_mtd(tmp_path / "tree", train=40, good=10)
    trained = MTD(root=str(root), split="tiles").training_records()[0].image
    number = int(trained.stem.split("_")[-1])
    for suffix in (".jpg", ".png"):
        image = next((root / "MT_Crack" / "Imgs").glob(f"*{suffix}"))
        image.rename(image.with_name(f"exp3_num_{number + 60}{suffix}"))
    data = MTD(root=str(root), split="tiles")
    assert trained in {record.image for record in data.records_of("test")}


def test_each_split_says_what_it_needs(tmp_path: Path) -> None:
    root = fakes.write_mtd(tmp_path / "tree")
    names = tmp_path / "mtd_train_filenames.txt"
    with pytest.raises(DataError, match=r"data\.train_list .*data\.split to published"):
        MTD(root=str(root), split="tiles", train_list=str(names))
    names.unlink()
    with pytest.raises(DataError, match=r"mtd_train_filenames\.txt .*data\.split=tiles"):
        MTD(root=str(root)).records()
    assert MTD(root=str(root), split="tiles").records_of("train")


def test_the_fingerprint_names_the_split(tmp_path: Path) -> None:
    root = str(fakes.write_mtd(tmp_path / "tree"))
    fields = [MTD(root=root, split=split).fingerprint_fields() for split in ("published", "tiles")]
    assert [field["split"] for field in fields] == ["published", "tiles"]


def test_held_out_tiles_are_not_trained_on_under_the_published_split(tmp_path: Path) -> None:
    data = MTD(root=str(fakes.write_mtd(tmp_path / "tree", train=40, good=10)))
    held_out = {record.specimen for record in data.held_out_records()}
    assert len(held_out) == 2
    assert held_out.isdisjoint(record.specimen for record in data.training_records())


def test_views_of_a_specimen_are_held_out_together(tmp_path: Path) -> None:
    root = fakes.write_real_iad(tmp_path / "tree", train=30, views=3)
    data = RealIAD(root=str(root))
    held_out = [record.image.parent for record in data.held_out_records()]
    assert sorted(Counter(held_out).values()) == [3, 3, 3]
    assert set(held_out).isdisjoint(record.image.parent for record in data.training_records())


def test_a_single_specimen_is_held_out_by_image(tmp_path: Path) -> None:
    root = fakes.write_real_iad(tmp_path / "tree", train=1, views=5)
    data = RealIAD(root=str(root), val_fraction=0.4)
    assert len(data.held_out_records()) == 2
    assert len(data.training_records()) == 3
