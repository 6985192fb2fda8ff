"""Which pixels count: by one mask, by category, by image; what is wrong with a mask is said."""

import numpy as np
import pytest

from data_modules import Folder, MVTecAD
from data_modules.problems import DataError
from tests.fakes import texture, write, write_mvtec

SIZE = (40, 60)


def left_half(size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[:, : size[1] // 2] = 255
    return mask


def photographs(root, count=4):
    for index in range(count):
        write(root / f"train/{index}.png", texture(index, *SIZE))
        write(root / f"test/good/{index}.png", texture(index, *SIZE))
    return root


def judged(root, roi, **options):
    data = Folder(root=str(root), roi=str(roi), num_workers=0, cache=False, **options)
    data.setup("test")
    [batch] = list(data.test_dataloader())
    return batch["judged"]


@pytest.mark.parametrize(("fit", "rows"), [("squash", slice(0, 20)), ("pad", slice(3, 17))])
def test_a_mask_counts_where_a_network_sees_it(tmp_path, fit, rows):
    write(tmp_path / "roi.png", left_half())
    root = photographs(tmp_path / "part")
    found = judged(root, tmp_path / "roi.png", image_size=20, fit=fit)
    expected = np.zeros((4, 1, 20, 20), np.uint8)
    expected[:, :, rows, :10] = 1
    inner = slice(rows.start + 1, rows.stop - 1)
    np.testing.assert_array_equal(found[:, :, inner], expected[:, :, inner])
    assert not found[..., 10:].any()


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        # The middle 40 of 60 columns are seen at half their size; the region ends at column 30.
        ({"image_size": 20, "fit": "crop"}, 10),
        # 60 x 40 pixels in a frame of 30 x 30, of which the middle 20 are seen.
        ({"image_size": 20, "resize": 30, "fit": "squash"}, 10),
    ],
)
def test_a_mask_is_cropped_as_its_photograph_is(tmp_path, options, columns):
    write(tmp_path / "roi.png", left_half())
    found = judged(photographs(tmp_path / "part"), tmp_path / "roi.png", **options)
    expected = np.zeros((4, 1, 20, 20), np.uint8)
    expected[..., :columns] = 1
    np.testing.assert_array_equal(found, expected)


def test_masks_by_image_lie_in_the_images_own_tree(tmp_path):
    root = photographs(tmp_path / "part", 2)
    for name, mask in (("0", left_half()), ("1", 255 - left_half())):
        write(tmp_path / f"roi/test/good/{name}.png", mask)
    first, second = judged(root, tmp_path / "roi", image_size=20, fit="squash")
    assert first[..., :10].all() and not first[..., 10:].any()
    np.testing.assert_array_equal(second, 1 - first)


def test_training_images_keep_all_pixels_and_held_out_ones_do_not(tmp_path):
    write(tmp_path / "roi.png", left_half())
    root, roi = photographs(tmp_path / "part", 9), str(tmp_path / "roi.png")
    data = Folder(root=str(root), roi=roi, image_size=20, num_workers=0, cache=False, batch_size=2)
    data.setup("fit")
    assert "judged" not in next(iter(data.train_dataloader()))
    assert "judged" in next(iter(data.val_dataloader()))


def test_each_category_has_its_own_and_a_missing_one_is_named(tmp_path):
    root = write_mvtec(tmp_path / "mvtec")
    data = MVTecAD(str(root))
    write(tmp_path / f"roi/{data.categories[0]}.png", left_half())
    with pytest.raises(DataError, match=rf"has no mask of {', '.join(data.categories[1:])}"):
        _ = MVTecAD(str(root), roi=str(tmp_path / "roi")).region


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        (left_half((10, 10)), r"10x10 pixels, its image has 60x40"),
        (np.zeros(SIZE, np.uint8), "empty region of interest"),
        (None, "there is no file or folder"),
    ],
)
def test_what_is_wrong_with_a_mask_is_said_before_anything_runs(tmp_path, roi, message):
    if roi is not None:
        write(tmp_path / "roi.png", roi)
    root = photographs(tmp_path / "part")
    with pytest.raises(ValueError, match=message):
        judged(root, tmp_path / "roi.png", image_size=20)


def test_images_without_a_mask_are_listed(tmp_path):
    root = photographs(tmp_path / "part")
    write(tmp_path / "roi/test/good/1.png", left_half())
    with pytest.raises(DataError, match=r"data\.roi: 3 problems(?s:.*)roi/test/good/0\.png"):
        judged(root, tmp_path / "roi", image_size=20)


def test_a_region_that_nobody_sees_is_refused(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[0, 0] = 255
    write(tmp_path / "roi.png", mask)
    with pytest.raises(ValueError, match="region of interest out of sight"):
        judged(photographs(tmp_path / "part"), tmp_path / "roi.png", image_size=4, fit="squash")


def test_the_fingerprint_tells_regions_apart_and_nothing_else_changes(tmp_path):
    root = photographs(tmp_path / "part")
    masks = {"a": left_half(), "b": 255 - left_half(), "c": left_half()}
    fields = {}
    for name, mask in masks.items():
        write(tmp_path / f"{name}.png", mask)
        data = Folder(root=str(root), roi=str(tmp_path / f"{name}.png"))
        fields[name] = data.fingerprint_fields() | {"files": data.files_hash("train")}
    plain = Folder(root=str(root))
    assert fields["a"] == fields["c"] != fields["b"]
    assert "roi" not in plain.fingerprint_fields()
    assert plain.files_hash("train") != fields["a"]["files"]
