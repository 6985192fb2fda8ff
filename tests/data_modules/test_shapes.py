"""Photographs that are not square: squashed, padded or cropped, and never counted where padded."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_modules import Folder, MVTecAD
from data_modules.reading.cache import DecodedCache
from data_modules.reading.framing import Framing
from data_modules.reading.geometry import place_of
from data_modules.reading.images import Decoding, fitted, fitted_mask
from data_modules.records import Record
from lightning_ad.detector.photograph import map_of_photograph, seen
from tests.data_modules.squares import recorded
from tests.fakes import texture, write

GOLDEN = Path(__file__).parent.parent / "golden/squares.json"
SHAPES = [(40, 100), (100, 40), (64, 64), (1, 90), (90, 1), (33, 47), (700, 90)]


def test_square_squashed_runs_are_as_they_were():
    assert recorded() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frame", [(32, 32), (32, 64), (48, 20)])
def test_a_padded_photograph_is_whole_in_its_own_aspect_ratio(shape, frame):
    place = place_of(shape, frame, "pad")
    assert place.height <= frame[0] and place.width <= frame[1]
    assert place.height == frame[0] or place.width == frame[1]
    assert abs(place.height - shape[0] * place.width / shape[1]) <= max(1, shape[0] / shape[1])
    assert abs(place.top - (frame[0] - place.height) / 2) <= 0.5
    pixels = fitted(texture(0, *shape), frame, "pad")
    assert pixels.shape == (*frame, 3)
    plain = cv2.resize(
        texture(0, *shape),
        (place.width, place.height),
        interpolation=cv2.INTER_AREA
        if place.height < shape[0] or place.width < shape[1]
        else cv2.INTER_LINEAR,
    )
    own = pixels[place.top :, place.left :][: place.height, : place.width]
    assert np.array_equal(own, plain)


def test_padding_is_mirrored_for_the_network_and_marks_no_defect():
    pixels = fitted(texture(0, 20, 60), (60, 60), "pad")
    assert np.array_equal(pixels[19], pixels[21])
    assert np.array_equal(pixels[20 - 15], pixels[20 + 15])
    mask = fitted_mask(np.ones((20, 60), np.uint8), (60, 60), "pad")
    assert mask[20:40].all() and mask.sum() == 20 * 60


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (64, 64), (700, 90)])
def test_a_cropped_photograph_fills_the_frame_with_its_middle(shape):
    pixels = fitted(texture(0, *shape), (32, 48), "crop")
    assert pixels.shape == (32, 48, 3)
    factor = max(32 / shape[0], 48 / shape[1])
    large = cv2.resize(texture(0, *shape), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    top, left = (large.shape[0] - 32) // 2, (large.shape[1] - 48) // 2
    same = large[top : top + 32, left : left + 48]
    assert np.abs(pixels[2:-2, 2:-2].astype(int) - same[2:-2, 2:-2]).mean() < 12


def _blob(shape, y, x):
    """A smooth bump at a place of a photograph."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50).astype(np.float32)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("resize", [None, (72, 104)])
@pytest.mark.parametrize("shape", [(120, 300), (300, 120), (200, 200), (64, 96)])
def test_what_a_network_sees_leads_back_to_its_place(fit, resize, shape):
    framing = Framing((64, 96), resize or (64, 96), (), fit=fit)
    y, x = shape[0] // 2 + 9, shape[1] // 2 - 11
    pixels = np.repeat((_blob(shape, y, x) * 255).astype(np.uint8)[..., None], 3, axis=2)
    image = seen(pixels, framing)
    assert image.shape == (1, 3, 64, 96)
    back = map_of_photograph(image[:, :1], framing, shape)
    assert back.shape == shape
    found = np.unravel_index(np.nanargmax(back), shape)
    assert abs(found[0] - y) <= 3 and abs(found[1] - x) <= 3
    unseen = np.isnan(back)
    cut = fit == "crop" and shape[0] * 96 != shape[1] * 64
    assert unseen.any() == (cut or bool(resize))


def _folder(tmp_path, **options):
    for number, shape in enumerate([(30, 70), (70, 30), (50, 50), (31, 64)]):
        write(tmp_path / f"parts/train/{number}.png", texture(number, *shape))
        write(tmp_path / f"parts/test/dent/{number}.png", texture(number, *shape))
        write(tmp_path / f"parts/ground_truth/dent/{number}.png", np.full(shape, 255, np.uint8))
    options = {
        "image_size": (32, 48),
        "num_workers": 0,
        "val_fraction": 0.5,
        "normal": [],
    } | options
    return Folder(str(tmp_path / "parts"), cache_dir=str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("cache", [False, True])
def test_ones_own_photographs_are_padded_and_say_where(tmp_path, cache):
    data = _folder(tmp_path, cache=cache, eval_batch_size=4)
    batch = next(iter(data.test_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 48)
    judged = batch["judged"].bool()
    assert judged.flatten(1).sum(1).tolist() == [21 * 48, 32 * 14, 32 * 32, 23 * 48]
    assert torch.equal(batch["mask"].bool(), judged)
    assert "judged" not in next(iter(data.train_dataloader()))
    squashed = _folder(tmp_path, cache=cache, fit="squash")
    assert "judged" not in next(iter(squashed.test_dataloader()))


def test_shapes_and_fits_share_no_cache_and_no_fingerprint(tmp_path):
    seen_as, folders, layouts = [], [], set()
    for size in (32, (32, 48), (48, 32)):
        for fit in ("squash", "pad", "crop"):
            data = _folder(tmp_path, image_size=size, fit=fit)
            seen_as.append(str(data.fingerprint_fields()))
            record = Record(tmp_path / "parts/train/0.png", None, 0, "train", "c", "good")
            cache = DecodedCache(tmp_path / "cache", "n", [record], data.decoding)
            folders.append(next(iter(cache.shelves.values())).folder.name)
            layouts.add(data.framing.layout)
    assert len(set(seen_as)) == len(set(folders)) == 9
    assert layouts == {(), ("pad",), ("crop",)}


def test_a_square_by_two_numbers_is_the_square(tmp_path):
    data = _folder(tmp_path, image_size=(32, 32), resize=(40, 40))
    assert (data.image_size, data.framing.resize) == (32, 40)
    assert (
        data.fingerprint_fields()
        == _folder(tmp_path, image_size=32, resize=40).fingerprint_fields()
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": (0, 8)}, r"data\.image_size must be at least 1, not \[0, 8\]"),
        (
            {"resize": (40, 47)},
            r"data\.resize \(\[40, 47\]\) must be .* data\.image_size \(\[32, 48\]\)",
        ),
        ({"fit": "stretch"}, r"data\.fit must be one of squash, pad, crop, tile, not stretch"),
        (
            {"augment": ["quarter_turns"]},
            r"quarter_turns need squares.*\[32, 48\]: take half_turns",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        _folder(tmp_path, **options)


def test_augmented_crops_of_any_shape(tmp_path):
    augment = ["translation", "half_turns", "horizontal_flip"]
    data = _folder(tmp_path, augment=augment, resize=(40, 60), batch_size=2)
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 3, 32, 48)


def test_decoding_to_a_rectangle_squashes_by_default(tmp_path):
    path = write(tmp_path / "a.png", texture(0, 30, 30))
    image, mask = Decoding((10, 20))(Record(path, None, 0, "test", "c", "good"))
    assert image.shape == (10, 20, 3) and mask.shape == (10, 20)
    assert MVTecAD("x", image_size=16).framing.fit == "squash"
