"""The doctor finds each kind of damage in each layout, names the file, and is calm otherwise."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_modules import MTD
from data_modules.doctor.command import main
from tests import fakes
from tests.fakes import TREES


def diagnose(
    capsys: pytest.CaptureFixture[str], data_set: str, root: Path, *options: str
) -> tuple[int, dict[str, Any]]:
    status = main(["--data", data_set, "--data.root", str(root), "--json", *options])
    content = json.loads(capsys.readouterr().out)
    assert content["exit_status"] == status
    return status, content


def first(root: Path, layout: str, kind: str) -> Path:
    """A file of the tree: a training image, a defective image, or its mask."""
    data = TREES[layout].data_set(root=str(root), cache=False)
    if kind == "train":
        return data.records_of("train")[0].image
    record = next(record for record in data.records() if record.label)
    return record.image if kind == "defective" else record.masks[-1]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def shrink(path: Path) -> None:
    fakes.write(path, np.full((9, 11), 255, np.uint8))


def remove(path: Path) -> None:
    for mask in masks_of_image(path):
        mask.unlink()


def masks_of_image(path: Path) -> list[Path]:
    """The mask, and those beside it where an image has a folder of masks."""
    in_folder = path.parent.parent.name.endswith("_anomalies")
    return list(path.parent.iterdir()) if in_folder else [path]


def blacken(path: Path) -> None:
    for mask in masks_of_image(path):
        fakes.write(mask, np.zeros(fakes.cv2.imread(str(mask)).shape[:2], np.uint8))


@pytest.mark.parametrize("layout", TREES)
def test_published_layout_is_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    write, data_set, categories = TREES[layout]
    status, content = diagnose(capsys, data_set.__name__, write(tmp_path / "tree"))
    assert content["problems"] == []
    assert status == 0
    assert {count["category"] for count in content["counts"]} == set(categories)


@pytest.mark.parametrize("layout", TREES)
@pytest.mark.parametrize(
    ("kind", "damage", "named"),
    [
        ("train", truncate, "unreadable"),
        ("defective", truncate, "unreadable"),
        ("mask", truncate, "unreadable"),
        ("mask", remove, "missing mask"),
        ("mask", shrink, "mask of another size"),
        ("mask", blacken, "empty mask"),
    ],
)
def test_damage_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    layout: str,
    kind: str,
    damage: Callable[[Path], None],
    named: str,
) -> None:
    write, data_set, _ = TREES[layout]
    root = write(tmp_path / "tree")
    path = first(root, layout, kind)
    damage(path)
    status, content = diagnose(capsys, data_set.__name__, root)
    assert status == 1
    assert [problem["kind"] for problem in content["problems"]] == [named]
    problem = content["problems"][0]
    assert Path(problem["path"]).parent == path.parent
    assert path.stem.removesuffix("_mask") in problem["path"] or layout == "MVTecLOCO"


@pytest.mark.parametrize("layout", TREES)
def test_train_image_copied_into_test_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    write, data_set, _ = TREES[layout]
    root = write(tmp_path / "tree")
    train = first(root, layout, "train")
    data = data_set(root=str(root), cache=False)
    category = data.records_of("train")[0].category
    good = [r for r in data.records_of("test") if not r.label and r.category == category]
    shutil.copy(train, good[0].image)
    _, content = diagnose(capsys, data_set.__name__, root)
    duplicates = [p for p in content["problems"] if p["kind"] == "duplicate across train and test"]
    assert len(duplicates) == 1
    named = duplicates[0]["path"] + duplicates[0]["detail"]
    assert str(train) in named
    assert str(good[0].image) in named


def test_orphaned_masks_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for layout in sorted(set(TREES) - {"MVTecLOCO"}):
        write, data_set, _ = TREES[layout]
        root = write(tmp_path / layout / "tree")
        mask = first(root, layout, "mask")
        orphan = mask.with_name(f"stray{mask.suffix}")
        shutil.copy(mask, orphan)
        status, content = diagnose(capsys, data_set.__name__, root)
        assert status == 1
        kinds = [(problem["kind"], problem["path"]) for problem in content["problems"]]
        assert kinds == [("orphaned mask", str(orphan))], layout


def test_everything_is_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fakes.write_visa_raw(tmp_path / "tree")
    truncate(root / "candle/Data/Images/Normal/0002.JPG")
    (root / "candle/Data/Images/Normal/0003.JPG").unlink()
    shrink(root / "pcb1/Data/Masks/Anomaly/001.png")
    (root / "pcb1/Data/Masks/Anomaly/002.png").unlink()
    _, content = diagnose(capsys, "VisA", root)
    assert {(problem["kind"], Path(problem["path"]).name) for problem in content["problems"]} == {
        ("unreadable", "0002.JPG"),
        ("missing", "0003.JPG"),
        ("mask of another size", "001.png"),
        ("missing mask", "002.png"),
    }
    status, content = diagnose(capsys, "VisA", root, "--data.category", "pcb1")
    assert len(content["problems"]) == 2
    assert status == 1


def test_class_ids_read_by_the_wrong_rule_are_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fakes.write_visa_converted(tmp_path / "tree", ("candle",))
    mask = np.zeros((48, 56), np.uint8)
    mask[3:9, 3:9] = 2
    fakes.write(root / "candle/ground_truth/bad/001.png", mask)
    assert diagnose(capsys, "VisA", root)[0] == 0
    status, content = diagnose(capsys, "MVTecAD", root)
    assert status == 1
    assert "largest value is 2" in content["problems"][0]["detail"]


def test_white_mask_of_a_normal_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fakes.write_mtd(tmp_path / "tree")
    mask = sorted((root / "MT_Free" / "Imgs").glob("*.png"))[0]
    fakes.write(mask, np.full(fakes.cv2.imread(str(mask)).shape[:2], 255, np.uint8))
    status, content = diagnose(capsys, "MTD", root)
    assert status == 1
    assert content["problems"][0]["kind"] == "mask of a normal image"
    assert content["problems"][0]["path"] == str(mask)


def test_modes_sizes_and_counts_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fakes.write_mvtec(tmp_path / "tree")
    _, content = diagnose(capsys, "MVTecAD", root)
    assert content["modes"] == {"bottle": {"RGB": 12}, "grid": {"L": 12}}
    assert content["sizes"]["bottle"] == {"48x48": 12}
    counts = {(c["category"], c["split"], c["defect"]): c for c in content["counts"]}
    assert counts["bottle", "train", "good"]["images"] == 6
    assert counts["bottle", "train", "good"]["published"] == 209
    assert counts["grid", "all", "defective"]["images"] == 3
    assert counts["grid", "all", "defective"]["published"] == 57
    kinds = {note["kind"] for note in content["notes"]}
    assert kinds == {"missing categories", "count differs"}


def test_tables_show_file_names_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fakes.write_mvtec(tmp_path / ("long" * 30))
    truncate(root / "bottle/train/good/003.png")
    assert main(["--data", "MVTecAD", "--data.root", str(root)]) == 1
    printed = capsys.readouterr()
    assert str(root / "bottle/train/good/003.png") in printed.out
    assert "209" in printed.out
    assert "examining" in printed.err


@pytest.mark.parametrize("name", ["screw[left]", "[bold] :bug:"])
def test_names_that_look_like_markup_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root = fakes.write_mvtec(tmp_path / "mvtec")
    (root / "bottle").rename(root / name)
    main(["--data=MVTecAD", f"--data.root={root}", f"--data.category={name}"])
    assert name in capsys.readouterr().out


def test_what_is_not_the_data_set_exits_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fakes.write_mvtec(tmp_path / "tree")
    status, content = diagnose(capsys, "MVTecAD", tmp_path)
    assert status == 2
    assert f"The folder {root}, below it, looks right" in content["error"]
    assert main(["--data", "MTD", "--data.root", str(root)]) == 2
    assert "MT_Free" in capsys.readouterr().err
    assert diagnose(capsys, "VisA", tmp_path / "absent")[0] == 2
    with pytest.raises(SystemExit) as refused:
        main(["--data", "NoSuchData", "--data.root", str(root)])
    assert refused.value.code == 2


def test_magnetic_tiles_published_without_a_marked_defect_are_no_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fakes.write_mtd(tmp_path / "tree")
    published = min(MTD.published_empty_masks)
    image = first(root, "MTD", "defective")
    image.rename(image.with_name(published).with_suffix(".jpg"))
    image.with_suffix(".png").unlink()
    blacken(fakes.write(image.with_name(published), fakes.gray(fakes.texture(0, 40, 40))))
    status, content = diagnose(capsys, "MTD", root)
    assert content["problems"] == [] and status == 0
    notes = [note["kind"] for note in content["notes"]]
    assert notes.count("mask published empty") == 1
    assert notes.count("grey mask") == 4  # of five kinds of defect, one each


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("carry", ["some", "all"])
def test_orientations_are_counted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    suffix: str,
    carry: str,
) -> None:
    root = fakes.write_folder(tmp_path / "tree", masks=False)
    images = sorted(root.glob("*/*/*"))
    exif = Image.Exif()
    exif[274] = 6
    for number, path in enumerate(images):
        new = path.with_suffix(suffix)
        turned = carry == "all" or number % 4 == 0
        Image.open(path).save(new, exif=exif if turned else Image.Exif())
        if new != path:
            path.unlink()
    status, content = diagnose(capsys, "Folder", root)
    notes = [note for note in content["notes"] if note["kind"] == "orientation ignored"]
    count = len(images) if carry == "all" else len(images[::4])
    assert status == 0 and len(notes) == count
    assert f"{count} of {len(images)} images carry" in notes[0]["detail"]
    assert ("differ" in notes[0]["detail"]) == (carry == "some")
    with caplog.at_level(logging.WARNING):
        TREES["Folder"].data_set(root=str(root), cache=False).setup("fit")
    assert "orientation ignored" in caplog.text


@pytest.mark.parametrize("bits", [8, 12])
def test_values_that_fill_a_part_of_16_bits_are_noticed(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    bits: int,
) -> None:
    root = fakes.write_folder(tmp_path / "tree", masks=False)
    for path in sorted(root.glob("*/*/*")):
        gray = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
        Image.fromarray((gray | 128) << (bits - 8)).save(path.with_suffix(".png"))
        path.unlink()
    status, content = diagnose(capsys, "Folder", root)
    notes = [note for note in content["notes"] if note["kind"] == "dark 16-bit images"]
    assert status == 0 and len(notes) == 1
    assert f"data.white_level to {2**bits - 1}" in notes[0]["detail"]
    told = diagnose(capsys, "Folder", root, f"--data.white_level={2**bits - 1}")[1]
    assert all(note["kind"] != "dark 16-bit images" for note in told["notes"])
    with caplog.at_level(logging.WARNING):
        TREES["Folder"].data_set(root=str(root), cache=False).setup("fit")
    assert f"camera of {bits} bits" in caplog.text
