"""People's own folders: names that decide labels, files that are walked past, files as a root."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from data_modules import DataError, Folder, MVTecAD, WrongTreeError
from data_modules.doctor.command import main
from tests.fakes import defective, texture, write, write_folder, write_mvtec


def put(root: Path, *names: str) -> Path:
    """A different image at each of the names."""
    for number, name in enumerate(names):
        write(root / name, texture(number, 16, 16))
    return root


def folder(root: Path, **options: object) -> Folder:
    return Folder(root=str(root), cache=False, num_workers=0, image_size=16, **options)  # type: ignore[arg-type]


def labels(data: Folder) -> dict[str, int]:
    return {r.image.parent.name: r.label for r in data.records_of("test")}


def diagnose(capsys: pytest.CaptureFixture[str], data_set: str, root: Path) -> tuple[int, dict]:
    status = main(["--data", data_set, "--data.root", str(root), "--json"])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("good", "bad"), [("OK", "NG"), ("Good", "Dent"), ("NORMAL", "not_ok")])
def test_folders_of_normal_images_are_known_in_any_case(
    tmp_path: Path, good: str, bad: str
) -> None:
    put(tmp_path, f"Train/{good}/1.png", f"Train/{good}/2.png", f"Test/{good}/3.png")
    put(tmp_path, f"Test/{bad}/4.png")
    write(tmp_path / "Ground_Truth" / bad.upper() / "4.PNG", defective(0, 16, 16)[1] * 255)
    data = folder(tmp_path)
    assert labels(data) == {good: 0, bad: 1}
    assert len(data.records_of("train")) == 2 and data.has_masks
    assert next(r for r in data.records() if r.label).masks[0].exists()


def test_the_shared_tree_knows_them_in_any_case(tmp_path: Path) -> None:
    put(tmp_path, "nut/Train/OK/1.png", "nut/Test/Good/2.png", "nut/Test/Ng/3.png")
    write(tmp_path / "nut/ground_truth/ng/3_mask.png", defective(0, 16, 16)[1] * 255)
    records = MVTecAD(root=str(tmp_path)).records()
    assert [(r.split, r.label) for r in records] == [("test", 0), ("test", 1), ("train", 0)]
    assert records[1].masks[0].exists()


@pytest.mark.parametrize("kinds", [("pass", "NG"), ("gut", "kratzer"), ("good", "good_2", "NG")])
def test_where_no_name_tells_the_user_is_asked(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    put(tmp_path, "train/1.png", *(f"test/{kind}/1.png" for kind in kinds))
    with pytest.raises(DataError, match=r"are the images in .* normal\? .*data\.normal"):
        folder(tmp_path).records()
    normal = [kind for kind in kinds if kind not in ("NG", "kratzer")]
    found = labels(folder(tmp_path, normal=normal))
    assert found == {kind: int(kind not in normal) for kind in kinds}
    assert set(labels(folder(tmp_path, normal=[])).values()) == {1}


@pytest.mark.parametrize("inside", ["NG", "good", "dent"])
def test_defects_among_the_training_images_are_asked_about(tmp_path: Path, inside: str) -> None:
    put(tmp_path, "train/day1/1.png", "train/day2/2.png", "test/good/3.png", "test/dent/4.png")
    assert len(folder(tmp_path).records_of("train")) == 2
    put(tmp_path, f"train/{inside}/5.png")
    with pytest.raises(DataError, match=r"taken to be normal"):
        folder(tmp_path).records()


def test_a_test_set_of_defects_alone_is_a_problem_to_the_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "nut/train/good/1.png", "nut/train/good/2.png", "nut/test/gut/3.png")
    write(tmp_path / "nut/ground_truth/gut/3_mask.png", defective(0, 16, 16)[1] * 255)
    status, content = diagnose(capsys, "MVTecAD", tmp_path)
    assert status == 1
    assert "called good or ok or normal" in content["problems"][0]["detail"]


LEFT = {
    "Folder": ["test/7.png", "photo.jpg", "extra/8.png", "train/9.heic"],
    "MVTecAD": ["nut/test/7.png", "nut/train/NG/8.png", "nut/test/dent/deep/9.png", "nut/x.GIF"],
}


@pytest.mark.parametrize("data_set", LEFT)
def test_what_is_walked_past_is_counted_and_named(
    tmp_path: Path,
    data_set: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = tmp_path if data_set == "Folder" else tmp_path / "nut"
    write_folder(root, size=16)
    options = {"cache": False, "num_workers": 0}
    make = {"Folder": Folder, "MVTecAD": MVTecAD}[data_set]
    with caplog.at_level(logging.WARNING):
        make(root=str(tmp_path), **options).setup("fit")  # type: ignore[arg-type]
    assert "left out" not in caplog.text
    for name in LEFT[data_set]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((root / "train/good/part-0.jpg").read_bytes())
    (tmp_path / "nut").mkdir(exist_ok=True)
    (tmp_path / "nut" / "notes.txt").write_text("no image")
    with caplog.at_level(logging.WARNING):
        make(root=str(tmp_path), **options).setup("fit")  # type: ignore[arg-type]
    assert "images left out (4)" in caplog.text
    _, content = diagnose(capsys, data_set, tmp_path)
    left = {note["path"] for note in content["notes"] if note["kind"] == "images left out"}
    assert left == {str(tmp_path / name) for name in LEFT[data_set]}


@pytest.mark.parametrize("data_set", ["Folder", "MVTecAD"])
def test_thumbnails_of_file_servers_are_nobodys_images(tmp_path: Path, data_set: str) -> None:
    root = write_folder(tmp_path / "tree" / ("nut" if data_set == "MVTecAD" else ""), size=16)
    make = {"Folder": Folder, "MVTecAD": MVTecAD}[data_set]
    before = make(root=str(tmp_path / "tree")).records()
    for place in ("train/good", "test", "test/dent", "ground_truth/dent"):
        put(root, f"{place}/@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg", f"{place}/#recycle/y.png")
    data = make(root=str(tmp_path / "tree"))
    assert data.records() == before and not data.left_out()


@pytest.mark.parametrize("name", ["top.png", "cam0.png"])
def test_images_of_one_name_are_split_by_their_folders(tmp_path: Path, name: str) -> None:
    for part in range(40):
        write(tmp_path / f"ok/part{part:02d}/{name}", texture(part, 8, 8))
    data = folder(tmp_path, normal_dir="ok")
    train = {record.image for record in data.records_of("train")}
    assert 24 <= len(train) <= 38
    put(tmp_path, "ok/new/other.png")
    again = {record.image for record in folder(tmp_path, normal_dir="ok").records_of("train")}
    assert train <= again
    held_out = folder(tmp_path, normal_dir="ok", val_fraction=0.25).held_out_records()
    assert len({record.image.parent for record in held_out}) == len(held_out) > 5


def test_a_single_image_of_a_name_keeps_its_split(tmp_path: Path) -> None:
    root = write_mvtec(tmp_path / "a", ("bottle",), train=30)
    held_out = {record.image.name for record in MVTecAD(root=str(root)).held_out_records()}
    moved = {
        record.image.name
        for record in MVTecAD(root=str(root.rename(tmp_path / "b"))).held_out_records()
    }
    assert held_out == moved


def test_a_root_may_be_files(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c [1].jpg", "deep/d.png", "deep/e.txt.png")

    def predicted(root: str | list[str]) -> list[str]:
        data = Folder(root=root)
        return [r.image.relative_to(tmp_path).as_posix() for r in data.predict_records()]

    assert predicted(str(tmp_path / "a.png")) == ["a.png"]
    assert predicted(str(tmp_path / "c [1].jpg")) == ["c [1].jpg"]
    assert predicted(str(tmp_path / "*.png")) == ["a.png", "b.png"]
    assert predicted(str(tmp_path / "**" / "*.png")) == [
        "a.png",
        "b.png",
        "deep/d.png",
        "deep/e.txt.png",
    ]
    both = [str(tmp_path / "b.png"), str(tmp_path / "deep")]
    assert predicted(both) == ["b.png", "deep/d.png", "deep/e.txt.png"]
    assert Folder(root=both).root == tmp_path
    for absent in (str(tmp_path / "*.bmp"), [str(tmp_path / "x.png")]):
        with pytest.raises(DataError, match=r"no image .*data\.root"):
            Folder(root=absent)
    with pytest.raises(WrongTreeError, match="only predict"):
        Folder(root=str(tmp_path / "a.png")).setup("fit")


def test_the_doctor_looks_at_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, "a.png", "b.png")
    for root in (tmp_path, tmp_path / "a.png", tmp_path / "*.png"):
        status, content = diagnose(capsys, "Folder", root)
        assert status == 0
        assert content["counts"][0]["split"] == "predict"
    (tmp_path / "b.png").write_bytes(b"broken")
    assert diagnose(capsys, "Folder", tmp_path)[0] == 1


@pytest.mark.parametrize("masks", [True, False])
def test_the_doctor_counts_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], masks: bool
) -> None:
    root = write_folder(tmp_path, masks=masks, bad=3)
    _, content = diagnose(capsys, "Folder", root)
    assert (content["defective_images"], content["masks"]) == (3, 3 if masks else 0)
    assert any(note["kind"] == "no masks" for note in content["notes"]) != masks
    assert main(["--data", "Folder", "--data.root", str(root)]) == 0
    assert f"clean; 3 defective images, {3 if masks else 0} masks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "mark"),
    [
        ("runs/x/predictions/heatmaps/a.png", "runs/x/predictions/predictions.csv"),
        ("predictions-1/panels/a.png", "predictions-1/predictions-until-error-0.csv"),
        ("runs/x/panels/nut/a.png", "runs/x/metrics.json"),
    ],
)
def test_pictures_of_our_own_are_not_scored(tmp_path: Path, written: str, mark: str) -> None:
    put(tmp_path, "a.png", "panels/own.png", written)
    assert len(folder(tmp_path).predict_records()) == 3
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).write_text("")
    found = [record.image.name for record in folder(tmp_path).predict_records()]
    assert found == ["a.png", "own.png"]


@pytest.mark.parametrize("name", [b"K\xe4fer.png", b"\xff.png"])
def test_names_of_files_need_not_be_utf_8(tmp_path: Path, name: bytes) -> None:
    put(tmp_path, "train/1.png", "train/2.png", "test/good/3.png")
    shutil.copy(tmp_path / "train/1.png", os.fsencode(tmp_path / "train") + b"/" + name)
    data = folder(tmp_path)
    data.setup("fit")
    assert len(data.records_of("train")) == 3 and data.fingerprint_fields()["train"]
    assert len(list(data.memory_dataloader())) == 1


def test_a_text_file_lists_what_is_predicted(tmp_path):
    for name in ("a.png", "in/b c.png", "in/d.png", "ü.png"):
        write(tmp_path / name, texture(0, 20, 30))
    (tmp_path / "list.txt").write_text(
        "\ufeffin/d.png\r\n\nü.png\nin/*.png\n" + str(tmp_path / "a.png")
    )
    records = Folder(root=str(tmp_path / "list.txt"), image_size=16).predict_records()
    assert [record.image.name for record in records] == ["d.png", "ü.png", "b c.png", "a.png"]
    assert {record.label for record in records} == {-1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png\nmissing.png\n", r"no image .*missing\.png.* as .*list\.txt, line 2, says"),
        ("\n\n", "names no images"),
        ("other.txt", "line 1: a list names images, not other.txt"),
    ],
)
def test_a_list_that_names_no_images_says_so(tmp_path, content, message):
    write(tmp_path / "a.png", texture(0, 20, 30))
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        Folder(root=str(tmp_path / "list.txt"), image_size=16)
