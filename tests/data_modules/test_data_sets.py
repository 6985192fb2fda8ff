"""Every data set reads its published layout, in small, and names what is wrong with a root."""

import inspect
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonargparse import ArgumentParser

import data_modules
from data_modules import (
    BTAD,
    MPDD,
    MTD,
    AnomalyDataModule,
    DataError,
    DTDSynthetic,
    Folder,
    MVTecAD,
    MVTecLOCO,
    RealIAD,
    SyntheticTextures,
    VisA,
    WrongTreeError,
)
from data_modules.records import Record
from tests import fakes
from tests.fakes import TREES


def read(data: AnomalyDataModule, loader: str) -> dict[str, np.ndarray]:
    """All batches of one loader, concatenated."""
    batches = list(getattr(data, f"{loader}_dataloader")())
    keys = ("image", "mask", "label", "category")
    found = {key: np.concatenate([batch[key].numpy() for batch in batches]) for key in keys}
    return {**found, "path": np.concatenate([batch["path"] for batch in batches])}


@pytest.mark.parametrize("layout", TREES)
def test_layout_reads_completely(tmp_path: Path, layout: str) -> None:
    write, data_set, categories = TREES[layout]
    data = data_set(
        root=str(write(tmp_path / "tree")),
        image_size=48,
        batch_size=5,
        num_workers=0,
        cache=False,
    )
    data.setup("fit")
    data.setup("test")
    assert data.categories == categories
    assert data.has_masks

    train, held_out, test = (read(data, loader) for loader in ("memory", "val", "test"))
    assert set(train["path"]).isdisjoint(held_out["path"])
    assert set(train["category"]) == set(held_out["category"]) == set(range(len(categories)))
    assert not train["label"].any()
    assert not held_out["label"].any()
    paths = [str(record.image) for record in data.records() if record.split == "train"]
    assert sorted([*train["path"], *held_out["path"]]) == sorted(paths)

    assert len(set(test["path"])) == len(test["path"])
    assert test["image"].shape[1:] == (3, 48, 48)
    assert test["image"].dtype == np.float32
    assert test["mask"].dtype == np.uint8
    assert -1 <= test["image"].min() < test["image"].max() <= 1
    assert test["label"].any()
    assert not test["label"].all()
    for image, mask, label in zip(test["image"], test["mask"], test["label"], strict=True):
        assert mask.any() == label
        if label:  # the defect is where the picture is brightest
            assert image.mean(axis=0)[mask[0] == 1].mean() > image.mean(axis=0)[mask[0] == 0].mean()


@pytest.mark.parametrize("layout", TREES)
def test_root_one_level_too_high_or_too_low_names_the_right_one(
    tmp_path: Path, layout: str
) -> None:
    write, data_set, _ = TREES[layout]
    root = write(tmp_path / "tree")
    below = next(path for path in sorted(root.iterdir()) if path.is_dir())
    if data_set is Folder:
        below = root / "train" / "good"
    for wrong in (tmp_path, below):
        with pytest.raises(WrongTreeError, match=f"{root.resolve()}, (above|below) it"):
            data_set(root=str(wrong)).setup("fit")


@pytest.mark.parametrize("layout", TREES)
def test_missing_and_empty_roots_are_named(tmp_path: Path, layout: str) -> None:
    data_set = TREES[layout].data_set
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongTreeError, match=r"no folder .*absent.*expected"):
        data_set(root=str(tmp_path / "absent")).setup("fit")
    with pytest.raises(WrongTreeError, match=r"empty.* is empty; expected"):
        data_set(root=str(tmp_path / "empty")).setup("fit")
    with pytest.raises(WrongTreeError, match=r"needs data\.root"):
        data_set()


@pytest.mark.parametrize("layout", sorted(set(TREES) - {"Folder"}))
def test_unknown_category_lists_the_known(tmp_path: Path, layout: str) -> None:
    write, data_set, categories = TREES[layout]
    root = write(tmp_path / "tree")
    with pytest.raises(DataError, match=f"'botle'.*{', '.join(categories)}"):
        data_set(root=str(root), category="botle").setup("fit")
    with pytest.raises(DataError, match="'botle'"):
        data_set(root=str(root), category=[categories[0], "botle"]).setup("fit")


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    root = fakes.write_mvtec(tmp_path / "tree")
    (root / "bottle/ground_truth/broken/000_mask.png").unlink()
    fakes.write(root / "grid/ground_truth/broken/001_mask.png", np.zeros((8, 9), np.uint8))
    truncated = root / "grid/train/good/002.png"
    truncated.write_bytes(truncated.read_bytes()[:400])
    (root / "bottle/test/good/001.png").write_text("no image")
    for cache in (True, False):
        data = MVTecAD(root=str(root), cache=cache, cache_dir=str(tmp_path / "cache"))
        with pytest.raises(DataError) as test_error:
            data.setup("test")
        with pytest.raises(DataError) as train_error:
            data.setup("fit")
        for name in ("000_mask.png", "001_mask.png: 9x8", "bottle/test/good/001.png"):
            assert name in str(test_error.value)
        assert "3 problems" in str(test_error.value)
        assert str(truncated) in str(train_error.value)


def test_a_long_list_of_problems_is_counted(tmp_path: Path) -> None:
    root = fakes.write_mvtec(tmp_path / "tree", ("bottle",), good=30)
    for image in (root / "bottle/test/good").iterdir():
        image.write_text("")
    with pytest.raises(DataError, match=r"30 problems(.|\n)*and 10 more"):
        MVTecAD(root=str(root), cache=False).setup("test")


def test_visa_reads_the_same_pixels_downloaded_and_converted(tmp_path: Path) -> None:
    roots = (fakes.write_visa_raw(tmp_path / "r"), fakes.write_visa_converted(tmp_path / "c"))
    raw, converted = (
        read(VisA(root=str(root), image_size=32, num_workers=0, cache=False), "test")
        for root in roots
    )
    for key in ("label", "category"):
        assert np.array_equal(raw[key], converted[key])
    assert np.array_equal(raw["image"], converted["image"])
    assert np.array_equal(raw["mask"], converted["mask"])
    assert raw["mask"].any()


def test_visa_trees_mixed_in_one_root_are_refused(tmp_path: Path) -> None:
    root = fakes.write_visa_raw(tmp_path / "tree", ("candle",))
    fakes.write_visa_converted(root, ("pcb1",))
    with pytest.raises(WrongTreeError, match=r"mixes .*candle.*pcb1.*separate"):
        VisA(root=str(root)).setup("fit")


def test_visa_download_without_its_split_file(tmp_path: Path) -> None:
    root = fakes.write_visa_raw(tmp_path / "tree")
    split = root / "split_csv" / "1cls.csv"
    split.write_text("object,image\n")
    with pytest.raises(DataError, match=r"1cls\.csv.*object, split, label, image, mask"):
        VisA(root=str(root)).setup("fit")
    shutil.rmtree(split.parent)
    with pytest.raises(WrongTreeError, match=r"split_csv/1cls\.csv is missing"):
        VisA(root=str(root)).setup("fit")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,",
            "no mask in the row of candle/D",
        ),
        ("candle,test", "no label, image, mask in the row of candle;"),
    ],
)
def test_visa_rows_that_lack_something_are_named(tmp_path: Path, row: str, message: str) -> None:
    root = fakes.write_visa_raw(tmp_path)
    with (root / "split_csv/1cls.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=message):
        VisA(root=str(root), cache=False).setup("test")


@pytest.mark.parametrize("outside", ["../secret.png", "/etc/secret.png", "a/../../secret.png"])
@pytest.mark.parametrize("layout", ["VisA", "RealIAD", "MTD"])
def test_lists_that_name_files_outside_of_the_root_are_refused(
    tmp_path: Path, layout: str, outside: str
) -> None:
    write, data_set, _ = TREES[layout]
    root = write(tmp_path / "tree")
    data = data_set(root=str(root), **({"split": "published"} if layout == "MTD" else {}))
    image = data.records_of("train")[0].image
    lists = {
        "VisA": root / "split_csv/1cls.csv",
        "RealIAD": root / "realiad_jsons/realiad_jsons/audiojack.json",
        "MTD": tmp_path / "mtd_train_filenames.txt",
    }
    text = lists[layout].read_text()
    start = text.index(image.name)
    start = max(text.rfind(mark, 0, start) for mark in ',"\n') + 1 if layout != "MTD" else start
    end = text.index(image.name) + len(image.name)
    lists[layout].write_text(text[:start] + outside + text[end:])
    with pytest.raises(DataError, match=r"secret\.png', which is not below"):
        data_set(root=str(root), **({"split": "published"} if layout == "MTD" else {})).records()


@pytest.mark.parametrize(("column", "value"), [("split", "tset"), ("label", "Normal")])
def test_visa_rows_of_unknown_words_are_named(tmp_path: Path, column: str, value: str) -> None:
    root = fakes.write_visa_raw(tmp_path)
    old = {"split": "candle,train,", "label": "train,normal"}[column]
    file = root / "split_csv/1cls.csv"
    new = {"split": f"candle,{value},", "label": f"train,{value}"}[column]
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=rf"the {column} '{value}' in the row of candle"):
        VisA(root=str(root)).records()


def test_visas_split_file_may_have_been_saved_by_a_spreadsheet(tmp_path: Path) -> None:
    root = fakes.write_visa_raw(tmp_path)
    expected = VisA(root=str(root)).records()
    file = root / "split_csv/1cls.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert VisA(root=str(root)).records() == expected


def test_a_category_named_twice_is_refused(tmp_path: Path) -> None:
    root = fakes.write_mvtec(tmp_path)
    with pytest.raises(DataError, match=r"data\.category names bottle twice"):
        MVTecAD(root=str(root), category=["bottle", "grid", "bottle"]).setup("fit")


def test_btad_with_renamed_normal_folders(tmp_path: Path) -> None:
    data = BTAD(root=str(fakes.write_btad(tmp_path / "tree", ("01",), normal="good")))
    assert [record.defect for record in data.records_of("test")] == ["good"] * 3 + ["ko"] * 3


def test_masks_of_normal_images_are_accepted(tmp_path: Path) -> None:
    root = fakes.write_visa_converted(tmp_path / "tree", ("candle",))
    for image in (root / "candle/test/good").iterdir():
        black = np.zeros((48, 56), np.uint8)
        fakes.write(root / "candle/ground_truth/good" / f"{image.stem}.png", black)
    data = VisA(root=str(root), image_size=16, num_workers=0, cache=False)
    assert read(data, "test")["mask"].any(axis=(1, 2, 3)).sum() == 3


@pytest.mark.parametrize("mask_name", ["{stem}", "{stem}_mask", "truth-{index}"])
@pytest.mark.parametrize("defect", ["bad", "anomaly"])
def test_dtd_tolerates_names(tmp_path: Path, mask_name: str, defect: str) -> None:
    root = fakes.write_dtd(tmp_path / "tree", mask_name=mask_name, defect=defect)
    data = DTDSynthetic(root=str(root), image_size=48, num_workers=0, cache=False)
    test = read(data, "test")
    for image, mask in zip(test["image"], test["mask"], strict=True):
        assert np.array_equal(mask[0] == 1, image[0] > 0.85)


def test_dtd_finds_masks_in_a_folder_of_another_name(tmp_path: Path) -> None:
    root = fakes.write_dtd(tmp_path / "tree", ("Mesh_114",))
    (root / "Mesh_114/ground_truth/bad").rename(root / "Mesh_114/ground_truth/defect")
    data = DTDSynthetic(root=str(root), image_size=16, num_workers=0, cache=False)
    assert read(data, "test")["mask"].any(axis=(1, 2, 3)).sum() == 3


def test_mtd_splits_by_the_list_it_is_given_or_finds(tmp_path: Path) -> None:
    root = fakes.write_mtd(tmp_path / "tree", train=8, good=3)
    listed = (tmp_path / "mtd_train_filenames.txt").read_text().split()
    found = {record.image.name for record in MTD(root=str(root)).records_of("train")}
    assert found == set(listed)

    (tmp_path / "own.txt").write_text("\n".join(listed[:5]))
    data = MTD(root=str(root), train_list=str(tmp_path / "own.txt"))
    assert {record.image.name for record in data.records_of("train")} == set(listed[:5])
    with pytest.raises(DataError, match=r"absent\.txt.*data\.train_list"):
        MTD(root=str(root), train_list=str(tmp_path / "absent.txt")).setup("fit")

    (tmp_path / "own.txt").write_text("\n".join([*listed, "exp1_num_0.jpg"]))
    with pytest.raises(DataError, match=r"exp1_num_0\.jpg: no such file"):
        MTD(root=str(root), train_list=str(tmp_path / "own.txt"), cache=False).setup("fit")


def test_mvtec_loco_holds_out_the_published_validation_images(tmp_path: Path) -> None:
    data = MVTecLOCO(root=str(fakes.write_mvtec_loco(tmp_path / "tree")), num_workers=0)
    assert all("/validation/" in record.image.as_posix() for record in data.held_out_records())
    assert len(data.held_out_records()) == 2


def test_real_iad_list_with_missing_keys_is_named(tmp_path: Path) -> None:
    root = fakes.write_real_iad(tmp_path / "tree")
    (root / "realiad_jsons/realiad_jsons/audiojack.json").write_text('{"train": []}')
    with pytest.raises(DataError, match=r"audiojack\.json.*normal_class"):
        RealIAD(root=str(root)).setup("fit")


def test_folder_without_masks_has_image_labels_only(tmp_path: Path) -> None:
    root = fakes.write_folder(tmp_path / "tree", masks=False)
    data = Folder(root=str(root), category="gear", image_size=16, num_workers=0, cache=False)
    assert not data.has_masks
    assert data.categories == ["gear"]
    test = read(data, "test")
    assert test["label"].sum() == 3
    assert not test["mask"].any()


def test_folder_of_normal_and_abnormal_images(tmp_path: Path) -> None:
    for number in range(20):
        fakes.write(tmp_path / "fine" / f"{number}.png", fakes.texture(number, 16, 16))
    image, mask = fakes.defective(99, 16, 16)
    fakes.write(tmp_path / "broken" / "a" / "x.png", image)
    fakes.write(tmp_path / "truth" / "a" / "x.png", mask)
    data = Folder(
        root=str(tmp_path),
        normal_dir="fine",
        abnormal_dir="broken",
        mask_dir="truth",
        mask_rule="nonzero",
        image_size=16,
        num_workers=0,
        cache=False,
    )
    assert len(data.records_of("train")) + len(data.records_of("test")) == 21
    assert 10 <= len(data.records_of("train")) <= 19
    test = read(data, "test")
    assert np.array_equal(test["mask"][test["label"] == 1][0, 0], mask)
    with pytest.raises(WrongTreeError, match=r"absent.*data\.abnormal_dir"):
        Folder(root=str(tmp_path), normal_dir="fine", abnormal_dir="absent")


def test_any_folder_of_images_can_be_predicted(tmp_path: Path) -> None:
    for name in ("a.JPG", "deep/b.png", "deep/er/c.bmp"):
        fakes.write(tmp_path / "parts" / name, fakes.texture(0, 20, 30))
    (tmp_path / "parts" / "readme.txt").write_text("not an image")
    data = Folder(root=str(tmp_path / "parts"), image_size=16, num_workers=0)
    data.setup("predict")
    assert [Path(path).name for path in read(data, "predict")["path"]] == [
        "a.JPG",
        "b.png",
        "c.bmp",
    ]
    with pytest.raises(WrongTreeError, match=r"neither train/.*only predict works"):
        data.setup("fit")


def test_a_folder_without_images_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match=r"no images below .*\.bmp.*\.webp"):
        Folder(root=str(tmp_path)).setup("predict")


def test_predict_of_a_train_test_folder_scores_all_but_the_masks(tmp_path: Path) -> None:
    root = fakes.write_folder(tmp_path / "tree")
    data = Folder(root=str(root), image_size=16, num_workers=0)
    assert len(read(data, "predict")["path"]) == 12


def test_category_without_defects_and_test_only_trees(tmp_path: Path) -> None:
    root = fakes.write_mvtec(tmp_path / "tree", ("bottle",), bad=0)
    data = MVTecAD(root=str(root), image_size=16, num_workers=0, cache=False)
    data.setup("fit")
    assert read(data, "test")["label"].tolist() == [0, 0, 0]
    shutil.rmtree(root / "bottle" / "train")
    data = MVTecAD(root=str(root), image_size=16, num_workers=0, cache=False)
    data.setup("test")
    assert data.fingerprint_fields()["test"]
    with pytest.raises(DataError, match="no train images of bottle"):
        data.setup("fit")


def test_published_counts_sum_to_the_published_totals() -> None:
    totals = {
        MVTecAD: (3629, 467, 1258),
        VisA: (8659, 962, 1200),
        BTAD: (1799, 451, 290),
        MTD: (761, 191, 392),
        MPDD: (888, 176, 282),
        MVTecLOCO: (1772 + 304, 575, 432 + 561),
    }
    for data_set, expected in totals.items():
        assert tuple(map(sum, zip(*data_set.published.values(), strict=True))) == expected


def test_every_data_set_is_built_and_explained_by_the_command_line(tmp_path: Path) -> None:
    classes = [
        member
        for _, member in inspect.getmembers(data_modules, inspect.isclass)
        if issubclass(member, AnomalyDataModule) and member is not AnomalyDataModule
    ]
    ours = {tree.data_set for tree in TREES.values()} | {SyntheticTextures}
    assert len(ours) == 10 and ours <= set(classes)
    for data_set in classes:
        parser = ArgumentParser(exit_on_error=False)
        parser.add_subclass_arguments(AnomalyDataModule, "data")
        name = data_set.__name__
        options = parser.parse_args([f"--data={name}", f"--data.root={tmp_path}"])
        assert isinstance(parser.instantiate(options).data, data_set)
        parameters = inspect.signature(data_set.__init__).parameters
        explained = inspect.getdoc(data_set) if "__init__" in vars(data_set) else None
        for parameter in set(parameters) - {"self"}:
            assert explained is None or f"{parameter}: " in explained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 1}, r"Wrong.list_category\('bottle'\) lists .* with label 1: it must be 0"),
        ({"category": "grid"}, r"Wrong.list_category\('bottle'\) lists .* as of category 'grid'"),
    ],
)
def test_a_new_data_set_cannot_train_on_defects_or_mix_categories_up(
    tmp_path: Path, change: dict, message: str
) -> None:
    class Wrong(MVTecAD):
        def list_category(self, category: str) -> list[Record]:
            return [replace(record, **change) for record in super().list_category(category)]

    data = Wrong(root=str(fakes.write_mvtec(tmp_path)), category="bottle")
    with pytest.raises(DataError, match=message):
        data.records()


def test_a_new_data_set_need_not_list_its_masks(tmp_path: Path) -> None:
    data = MVTecAD(root=str(fakes.write_mvtec(tmp_path)))
    listed = AnomalyDataModule.list_masks(data, "bottle")
    assert sorted(listed) == sorted(data.list_masks("bottle")) and listed
