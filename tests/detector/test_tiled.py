"""Photographs in tiles: maps without seams, equal to the whole's where a method sees no further."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from data_modules import Folder
from data_modules.reading.framing import Framing
from data_modules.reading.images import read_image
from data_modules.reading.tiles import Tiling, mirrored, starts, tiles_of
from data_modules.records import Record
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.detector.tiled import Tiled
from lightning_ad.experiment.calibrate import calibrate
from lightning_ad.experiment.vouching import vouched_for
from tests.fakes import texture, write


class Convolution(AnomalyDetector):
    """Its map at a pixel depends on what is up to six pixels away."""

    reach = 6

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.SiLU(),
                                    nn.Conv2d(4, 1, 9, padding=4))  # fmt: skip

    def phases(self):
        return []

    def compare(self, image, category):
        return None, {"one": self.layers(image)}


def tiled(method=None, tile=(32, 48), **options):
    detector = Tiled(method or Convolution(), **options)
    detector.framing = Framing(tile, tile, (), fit="tile")
    return detector


def image(*size):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


NO_CATEGORY = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("size", [(100, 130), (32, 48), (33, 49), (200, 50), (64, 333)])
@pytest.mark.parametrize("overlap", [0.5, 0.75])
@pytest.mark.parametrize("at_once", [1, 5])
def test_a_method_without_further_context_gives_the_map_of_the_whole(size, overlap, at_once):
    detector = tiled(overlap=overlap, tiles_at_once=at_once)
    found = detector.detect(image(*size), NO_CATEGORY)
    whole = detector.method.detect(image(*size), NO_CATEGORY)
    torch.testing.assert_close(found.anomaly_map, whole.anomaly_map, rtol=0, atol=1e-5)
    assert found.score == pytest.approx(float(found.anomaly_map.max()))


@pytest.mark.parametrize("share", [0.0, 0.02])
def test_a_defect_scores_alike_in_a_large_and_in_a_small_photograph(share):
    method = Convolution()
    method.top_share = share
    detector, found = tiled(method), []
    for size in ((32, 48), (200, 300), (10, 12)):
        values = torch.zeros(1, 1, *size)
        values[..., 3:6, 4:8] = torch.arange(12.0).view(3, 4) + 1
        found.append(float(detector.score(values, {})))
    count = round(share * 32 * 48) or 1  # of a tile's pixels
    assert found[0] == found[1] == pytest.approx(sum(sorted(range(13))[-count:]) / count)
    assert found[2] == pytest.approx(12 if not share else (12 + 11) / 2)  # of its own 120


def test_the_border_of_a_tile_shows_where_it_would_count():
    """The test above can fail: this method sees further than three eighths of the overlap."""
    detector = tiled(overlap=0.25)
    found = detector.detect(image(100, 130), NO_CATEGORY).anomaly_map
    whole = detector.method.detect(image(100, 130), NO_CATEGORY).anomaly_map
    assert (found - whole).abs().max() > 1e-3


def test_photographs_smaller_than_a_tile_are_mirrored():
    detector = tiled()
    for size in ((10, 200), (100, 3), (1, 1), (7, 9)):
        assert detector.detect(image(*size), NO_CATEGORY).anomaly_map.shape[2:] == size
    assert mirrored(3, 8).tolist() == [2, 1, 0, 1, 2, 1, 0, 1]
    small = image(20, 30)
    rows, columns = mirrored(20, 32), mirrored(30, 48)
    large = small[..., rows[:, None], columns]
    expected = detector.method.detect(large, NO_CATEGORY).anomaly_map[..., 6:26, 9:39]
    torch.testing.assert_close(detector.detect(small, NO_CATEGORY).anomaly_map, expected)


@pytest.mark.parametrize("side", [31, 32, 33, 63, 64, 100, 4000])
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.9])
def test_tiles_cover_a_side_from_end_to_end(side, overlap):
    begins = starts(side, 32, overlap)
    assert begins[0] == 0
    if side <= 32:
        assert begins == [0]
        return
    assert begins[-1] + 32 == side
    shared = 32 - np.diff(begins)
    assert (shared >= np.floor(32 * overlap)).all() and (np.diff(begins) > 0).all()
    assert shared.max() - shared.min() <= 1


def test_several_scales_each_count_by_their_own_measure():
    detector = tiled(scales=[1.0, 0.5], overlap=0.5)
    detector.categories = ["c"]
    extremes = {"scale_1_max": torch.tensor([2.0, 4.0]), "scale_0.5_max": torch.tensor([1.0, 0.0])}
    detector.set_constants(extremes | {"category": torch.tensor([0, 0])})
    found = detector.detect(image(90, 120), NO_CATEGORY)
    assert list(found.parts) == ["scale_1", "scale_0.5"]
    expected = (found.parts["scale_1"] / 3 + found.parts["scale_0.5"] / 0.5) / 2
    torch.testing.assert_close(found.anomaly_map, expected)
    assert found.anomaly_map.shape == (1, 1, 90, 120)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"overlap": 1.0}, r"model\.overlap must be from 0 to below 1, not 1"),
        ({"overlap": -0.1}, r"model\.overlap must be from 0 to below 1"),
        ({"scales": [0.5, 0.5]}, r"model\.scales name one twice"),
        ({"scales": [0.0]}, r"model\.scales must lie between 0 and 4"),
        ({"tiles_at_once": 0}, r"model\.tiles_at_once must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        tiled(**options)


def test_a_published_protocol_is_of_whole_images():
    method = Convolution()
    method.protocol = "as published (class: given)"
    with pytest.raises(ValueError, match="Convolution measures as its paper did, not in tiles"):
        tiled(method)


@pytest.fixture
def parts(tmp_path):
    for number, shape in enumerate([(90, 70), (70, 130), (20, 25), (90, 70), (64, 64), (100, 90)]):
        write(tmp_path / f"train/{number}.png", texture(number, *shape))
    return tmp_path


def data_of(root, **options):
    options = {"image_size": (32, 48), "fit": "tile", "num_workers": 0, "batch_size": 4} | options
    return Folder(str(root), cache_dir=str(root.parent / "cache"), val_fraction=0.4, **options)


@pytest.mark.parametrize("cache", [True, False])
def test_what_trains_and_calibrates_comes_in_tiles_of_the_files(parts, cache):
    data = data_of(parts, cache=cache)
    lessons = data.in_tiles(Tiling(0.25, (1.0,)))
    records = lessons.training_records()
    assert len(records) == sum(
        len(starts(h, 32, 0.25)) * len(starts(w, 48, 0.25))
        for h, w in (read_image(r.image).shape[:2] for r in data.training_records())
    )
    for item, tile in zip(lessons.memory_dataloader().dataset, records, strict=True):
        pixels = read_image(tile.image)
        rows, columns = mirrored(tile.height, 32), mirrored(tile.width, 48)
        own = pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        expected = own[rows[:, None], columns]
        assert np.array_equal(
            np.rint((item["image"].numpy() + 1) * 127.5), expected.transpose(2, 0, 1)
        )
        assert item["path"] == tile.name
    assert len({tile.name for tile in records}) == len(records)
    assert {i["image"].shape[1:] for i in lessons.val_dataloader().dataset} == {(32, 48)}
    whole = next(iter(data.val_dataloader()))["image"]
    assert whole.shape[2:] == read_image(data.held_out_records()[0].image).shape[:2]


def test_tiles_know_what_counts_and_those_that_show_nothing_of_it_calibrate_nothing(parts):
    """A region of interest in the upper left corner, of all photographs alike."""
    for file in (parts / "train").iterdir():
        write(file, texture(int(file.stem), 90, 130))
    mask = np.zeros((90, 130), np.uint8)
    mask[:18, :26] = 255
    write(parts.parent / "roi.png", mask)
    data = data_of(parts, roi=str(parts.parent / "roi.png"))
    lessons = data.in_tiles(Tiling(0.25, (1.0, 0.5)))
    assert len(lessons.training_records()) == len(data_of(parts).in_tiles(
        Tiling(0.25, (1.0, 0.5))).training_records())  # fmt: skip
    shown = lessons.held_out_records()
    assert {(t.scale, t.top, t.left) for t in shown} == {(1.0, 0, 0), (0.5, 0, 0)}
    for item, tile in zip(lessons.val_dataloader().dataset, shown, strict=True):
        expected = np.zeros((32, 48), np.uint8)
        expected[: int(18 * tile.scale), : int(26 * tile.scale)] = 1
        np.testing.assert_array_equal(item["judged"][0], expected)


def test_only_tiles_are_held_out_in_part(parts, monkeypatch):
    monkeypatch.setattr("data_modules.base.MOST_HELD_OUT", 1)
    data = data_of(parts)
    assert len(data.held_out_records()) == 2
    assert len(data.in_tiles(Tiling(0.25, (1.0,))).held_out_records()) == 1


def test_training_sees_tiles_from_anywhere_and_the_same_ones_again(parts):
    lessons = data_of(parts).in_tiles(Tiling(0.25, (1.0,)))
    first, again = (next(iter(lessons.train_dataloader()))["image"] for _ in range(2))
    assert torch.equal(first, again) and first.shape == (4, 3, 32, 48)
    grid = torch.stack([item["image"] for item in lessons.memory_dataloader().dataset])
    distance = (first[:, None] - grid).abs().mean((2, 3, 4)).amin(1)
    assert (distance > 0).any()  # not only tiles of the grid


def test_tiles_at_half_size_show_twice_as_much(parts):
    record = Record(parts / "train/5.png", None, 0, "train", "c", "good")
    tiles = tiles_of(record, (100, 90), (32, 48), Tiling(0.25, (0.5,)))
    assert tiles[0].scaled == (50, 45) and {t.width for t in tiles} == {45}
    lessons = data_of(parts).in_tiles(Tiling(0.25, (0.5,)))
    item = next(i for i in lessons.memory_dataloader().dataset if "@0,0" in i["path"])
    pixels = read_image(parts / item["path"].split("#")[0])
    if pixels.shape[0] >= 64:
        expected = pixels[:64, : 2 * min(48, pixels.shape[1] // 2)].mean() / 127.5 - 1
        assert float(item["image"].mean()) == pytest.approx(expected, abs=0.05)


@torch.no_grad()
def test_thresholds_come_from_whole_photographs(parts):
    data, detector = data_of(parts), tiled(overlap=0.5)
    detector.framing = None
    detector.meet(data, "fit")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False,
                      enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    calibrate(detector, trainer, data)
    expected = [
        float(detector.method.compare(batch["image"], NO_CATEGORY)[1]["one"].max())
        if min(batch["image"].shape[2:]) >= 48
        else float(detector.detect(batch["image"], NO_CATEGORY).anomaly_map.max())
        for batch in data.val_dataloader()
    ]
    scores = detector.calibration["normal_scores"].tolist()
    assert scores == pytest.approx(expected, abs=1e-5)


def test_what_takes_one_size_refuses_whole_photographs_and_the_reverse(parts):
    with pytest.raises(ValueError, match=r"Convolution takes images of one size.*--tiles"):
        Convolution().meet(data_of(parts), "fit")
    with pytest.raises(
        ValueError, match=r"Convolution in tiles takes photographs as they are.*pad"
    ):
        tiled().meet(data_of(parts, fit="pad"), "fit")


def test_too_large_a_photograph_is_named_with_the_option(parts):
    data = data_of(parts, max_megapixels=0.008)
    with pytest.raises(ValueError, match=r"0\.0 million.*data\.max_megapixels"):
        data.setup("fit")


def test_few_photographs_are_not_told_to_take_folds_that_tiles_refuse(parts):
    one_size = data_of(parts, fit="squash")
    few = Convolution()
    few.decision.false_alarm_rate = 0.2
    assert "model.folds" in vouched_for(few, one_size)
    said = vouched_for(tiled(few), data_of(parts))
    assert "data.val_fraction" not in said and "model.folds" not in said
    assert "2 held-out images" in said and "set model.false_alarm_rate to 0.334" in said
