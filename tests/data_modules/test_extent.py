"""What is left of photographs and defects at the size that a network sees, and what is said."""

import json
import logging

import numpy as np
import pytest

from data_modules import Folder
from data_modules.doctor.command import main
from data_modules.reading.extent import advice, areas_seen
from data_modules.reading.framing import Framing
from tests.fakes import texture, write


def framing(size, fit="squash", resize=None):
    return Framing(size, resize or size, (), fit=fit)


def blocks():
    """Two defects of 20 x 30 and 6 x 6 pixels, one of them at the left end, in 200 x 400."""
    mask = np.zeros((200, 400), np.uint8)
    mask[90:110, 0:30] = 1
    mask[97:103, 200:206] = 1
    return mask


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (framing((200, 400)), [600, 36]),
        (framing((100, 100)), [600 / 8, 36 / 8]),
        (framing((100, 100), "pad"), [600 / 16, 36 / 16]),
        (framing((100, 100), "crop"), [0, 36 / 4]),
        (framing((100, 100), "pad", (200, 200)), [0, 36 / 4]),
        (framing((64, 64), "tile"), [600, 36]),
    ],
)
def test_defects_shrink_and_are_cut_as_the_photograph_is(seen, expected):
    assert areas_seen(blocks(), seen) == pytest.approx(expected)


def _tree(root, shape, side, count=4):
    for number in range(4):
        write(root / f"train/{number}.png", texture(number, *shape))
        write(root / f"test/good/{number}.png", texture(9 + number, *shape))
    for number in range(count):
        mask = np.zeros(shape, np.uint8)
        mask[20 : 20 + side, 30 : 30 + side] = 255
        write(root / f"test/dent/{number}.png", texture(20 + number, *shape))
        write(root / f"ground_truth/dent/{number}.png", mask)
    return root


@pytest.mark.parametrize(("side", "said"), [(6, True), (60, False)])
def test_a_run_says_that_its_defects_are_too_small(tmp_path, caplog, side, said):
    root = _tree(tmp_path / "parts", (200, 400), side)
    data = Folder(str(root), image_size=64, num_workers=0, cache=False)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert ("4 of 4 defects are smaller than one cell" in caplog.text) == said
    if said:
        assert "data.image_size 64" in caplog.text and "--tiles" in caplog.text


def test_the_doctor_measures_and_advises(tmp_path, capsys):
    root = _tree(tmp_path / "parts", (200, 400), 12)
    options = ["--data=Folder", f"--data.root={root}", "--data.image_size=64", "--data.fit=squash"]
    main(["--json", *options])
    [extent] = json.loads(capsys.readouterr().out)["seen"]
    assert (extent["defects"], extent["small"]) == (4, 4)
    assert extent["width_over_height"] == 2.0
    shape, size = extent["advice"]
    assert "2.00 times as wide as high: data.fit pad" in shape and "[32, 64]" in shape
    assert "4 of 4 defects" in size and "--tiles" in size and "where 0 would be" in size
    main(options)
    shown = " ".join(capsys.readouterr().out.split())
    assert "as a network sees them" in shown and "where 0 would be" in shown


def test_without_defects_the_cell_is_measured():
    [line] = advice([(2000, 2000)], [], framing(256))
    assert "shows 62x62 pixels of a photograph" in line and "--tiles" in line
    assert advice([(256, 256)], [], framing(256)) == []
    assert advice([(2000, 4000)], [], framing(256, "tile")) == []


def test_shapes_that_differ_get_no_common_size():
    [line] = advice([(100, 40), (100, 160), (100, 100)], [500.0], framing(100))
    assert "0.46 to 1.54 times as wide as high" in line and "image_size" not in line


@pytest.mark.parametrize(("left", "said"), [(0, True), (150, False)])
def test_a_run_says_that_half_of_its_region_is_cut_off(tmp_path, caplog, left, said):
    root, region = _tree(tmp_path / "parts", (200, 400), 60), np.zeros((200, 400), np.uint8)
    region[:, left : left + 120] = 255
    write(tmp_path / "roi.png", region)
    options = {"image_size": 64, "fit": "crop", "num_workers": 0, "cache": False}
    data = Folder(str(root), roi=str(tmp_path / "roi.png"), **options)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    assert ("region of interest cut off" in caplog.text) == said
    assert ("a network sees 17 % of it" in caplog.text) == said
