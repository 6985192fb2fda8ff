"""Every kind of file becomes the same kind of pixels, and no broken file becomes any."""

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torchvision
from PIL import Image, PngImagePlugin
from torchvision.transforms import InterpolationMode

from data_modules.problems import DataError
from data_modules.reading.images import (
    Decoding,
    Interpolation,
    read_image,
    read_mask,
    require_complete,
    resize,
)
from data_modules.records import Record
from tests.fakes import texture, write

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_grayscale_repeats_its_value(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([RAMP] * 3, axis=-1))


def test_colours_keep_their_order(tmp_path: Path) -> None:
    pixels = np.zeros((4, 5, 3), np.uint8)
    pixels[:] = (250, 20, 3)
    for suffix in (".png", ".bmp", ".tif", ".JPG"):
        path = tmp_path / f"a{suffix}"
        Image.fromarray(pixels).save(path, quality=100, subsampling=0)
        assert np.abs(read_image(path).astype(int) - pixels).max() <= 2, suffix


def test_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), pixels[..., :3])


def test_grayscale_with_alpha(tmp_path: Path) -> None:
    pixels = np.stack([RAMP, RAMP[::-1]], axis=-1)
    Image.fromarray(pixels, "LA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([RAMP] * 3, axis=-1))


def test_16_bit_is_divided_not_stretched(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 30000], [257 * 100, 65534, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    expected = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 0], expected)
    assert read_image(tmp_path / "a.png").dtype == np.uint8


def test_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(texture(0, 20, 30)).quantize(7)
    image.save(tmp_path / "a.png")
    assert image.mode == "P"
    assert np.array_equal(read_image(tmp_path / "a.png"), np.array(image.convert("RGB")))


def test_bilevel_is_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(RAMP > 100).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 1], (RAMP > 100) * np.uint8(255))


def test_fractions_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "height.tif")
    with pytest.raises(DataError, match=r"height\.tif.*float32.*whole numbers"):
        read_image(tmp_path / "height.tif")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.9, -1])
def test_truncated_files_are_refused_by_name(tmp_path: Path, suffix: str, kept: float) -> None:
    path = write(tmp_path / f"part{suffix}", texture(0, 60, 80))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))] if kept >= 0 else data[:-1])
    with pytest.raises(DataError, match=f"part{suffix}"):
        read_image(path)
    with pytest.raises(DataError, match=f"part{suffix}"):
        require_complete(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"part{suffix}", texture(0, 60, 80))
    before = read_image(path)
    path.write_bytes(path.read_bytes() + b"\0\0appended")
    assert np.array_equal(read_image(path), before)
    assert require_complete(path)[:2] == (60, 80)


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    for name in ("notes.png", "absent.png"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


def test_mask_is_cut_at_half_of_the_possible_maximum(tmp_path: Path) -> None:
    values = np.array([[0, 1, 9, 13], [127, 128, 200, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png").tolist() == [[0, 0, 0, 0], [0, 1, 1, 1]]
    assert read_mask(tmp_path / "a.png", "nonzero").tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        (np.array([[0, 1, 1]], np.uint8), 255),  # zeros and ones
        (np.array([[0, 2, 5]], np.uint8), 255),  # numbers of classes
        (np.array([[0, 127]], np.uint8), 255),
        (np.array([[0, 255]], np.uint16), 65535),  # 8 bits in a file of 16
    ],
)
def test_a_mask_that_would_mark_nothing_is_refused(
    tmp_path: Path, values: np.ndarray, limit: int
) -> None:
    Image.fromarray(values).save(tmp_path / "a.png")
    message = rf"marks nothing: .*a\.png: .* {values.max()} .* half of {limit}.*nonzero"
    with pytest.raises(DataError, match=message):
        read_mask(tmp_path / "a.png")
    assert read_mask(tmp_path / "a.png", "nonzero").any()


def test_masks_of_bits_and_black_ones_are_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[False, True, True]])).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[0, 1, 1]]
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "black.png")
    assert not read_mask(tmp_path / "black.png").any()


@pytest.mark.parametrize("big", [False, True])
def test_tiffs_are_read_as_stored_or_refused(tmp_path: Path, big: bool) -> None:
    pixels = texture(3, 20, 30)
    alpha = np.full((20, 30), 10, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.tif", big_tiff=big)
    Image.fromarray(np.dstack([pixels, alpha])).save(tmp_path / "pale.tif", big_tiff=big)
    gray = Image.fromarray(np.dstack([pixels[..., 0], alpha]), "LA")
    gray.save(tmp_path / "gray.tif", big_tiff=big)
    Image.fromarray(pixels).save(tmp_path / "turned.tif", tiffinfo={274: 3}, big_tiff=big)
    assert ((tmp_path / "plain.tif").read_bytes()[2] == 43) == big
    assert np.array_equal(read_image(tmp_path / "plain.tif"), pixels)
    assert np.array_equal(read_image(tmp_path / "pale.tif"), pixels)
    assert np.array_equal(read_image(tmp_path / "gray.tif")[..., 0], pixels[..., 0])
    with pytest.raises(DataError, match=r"turned\.tif.*orientation"):
        read_image(tmp_path / "turned.tif")


def test_limits_of_libraries_refuse_no_good_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = texture(0, 30, 40)
    note = PngImagePlugin.PngInfo()
    note.add_text("XML:com.adobe.xmp", "x" * 2 * 2**20, zip=True)
    Image.fromarray(pixels).save(tmp_path / "edited.png", pnginfo=note)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # as if the images were vast
    for suffix in (".bmp", ".tif", ".jpg", ".webp"):
        image = Image.fromarray(pixels)
        image.save(tmp_path / f"vast{suffix}", quality=100, subsampling=0, lossless=True)
        with (tmp_path / f"vast{suffix}").open("ab") as file:
            file.write(b"\0" * (suffix == ".jpg"))  # so that its end is looked at closely
    for path in tmp_path.iterdir():
        if path.suffix == ".webp":  # never as large: 16383 is the longest side
            continue
        assert require_complete(path)[:2] == (30, 40)
        assert np.abs(read_image(path).astype(int) - pixels).max() <= 3, path


def test_our_own_limit_is_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", texture(0, 8, 8))
    data = bytearray(path.read_bytes())
    data[16:24] = (100_000).to_bytes(4) * 2
    path.write_bytes(data)
    for read in (read_image, require_complete):
        with pytest.raises(DataError, match=r"a\.png.*100000x100000 pixels, more than .*tiles"):
            read(path)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "a.png")
    for read in (read_image, read_mask, require_complete):
        with pytest.raises(DataError, match=r"a\.png.*pipe or a device"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [10, 12])
def test_the_white_level_of_a_camera_spreads_its_values(tmp_path: Path, bits: int) -> None:
    values = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert len(np.unique(read_image(tmp_path / "a.png"))) <= 2 ** (bits - 8) + 1
    assert np.array_equal(read_image(tmp_path / "a.png", 2**bits - 1)[..., 0], RAMP)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [16, 100])
def test_interpolation_is_torchvisions(name: Interpolation, size: int) -> None:
    pixels = texture(5, 70, 50)
    theirs = torchvision.transforms.Resize((size, size), InterpolationMode[name.upper()])
    assert np.array_equal(resize(pixels, size, name), np.asarray(theirs(Image.fromarray(pixels))))
    assert not np.array_equal(resize(pixels, size, name), resize(pixels, size))


def test_mask_of_16_bit_and_of_colours(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255, 32767, 32768]], np.uint16)).save(tmp_path / "deep.png")
    assert read_mask(tmp_path / "deep.png").tolist() == [[0, 0, 0, 1]]
    colours = np.array([[[0, 0, 0], [255, 0, 0], [100, 100, 100], [0, 0, 129]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "colour.png")
    assert read_mask(tmp_path / "colour.png").tolist() == [[0, 1, 0, 1]]


def test_resizing_averages_images_and_keeps_masks_sharp(tmp_path: Path) -> None:
    pixels = texture(1, 64, 96)
    mask = np.zeros((64, 96), np.uint8)
    mask[8:24, 30:60] = 200
    image_path = write(tmp_path / "a.png", pixels)
    mask_path = write(tmp_path / "m.png", mask)
    image, small = Decoding(32)(Record(image_path, mask_path, 1, "test", "c", "d"))
    blocks = pixels[..., ::-1].reshape(32, 2, 32, 3, 3).mean(axis=(1, 3))
    assert np.abs(image - blocks).max() <= 0.5 + 1e-6
    expected = np.zeros((32, 32), np.uint8)
    expected[4:12, 10:20] = 1
    assert np.array_equal(small, expected)


def test_masks_take_the_nearest_pixel(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (40, 40), np.uint8)
    image, mask_path = texture(0, 40, 40), write(tmp_path / "m.png", mask * 255)
    record = Record(write(tmp_path / "a.png", image), mask_path, 1, "test", "c", "d")
    assert np.array_equal(Decoding(8)(record)[1], mask[2::5, 2::5])


def test_mask_is_binarised_before_it_is_resized(tmp_path: Path) -> None:
    mask = np.full((64, 64), 100, np.uint8)
    mask[20:40, 20:40] = 255
    record = Record(
        write(tmp_path / "a.png", texture(0, 64, 64)),
        write(tmp_path / "m.png", mask),
        1,
        "test",
        "c",
        "d",
    )
    assert set(np.unique(Decoding(16)(record)[1])) == {0, 1}
    assert Decoding(16)(record)[1].sum() == 25


def test_normal_images_have_black_masks_whatever_is_beside_them(tmp_path: Path) -> None:
    image = write(tmp_path / "a.png", texture(0, 40, 40))
    white = write(tmp_path / "m.png", np.full((40, 40), 255, np.uint8))
    for mask in (None, white):
        assert not Decoding(16)(Record(image, mask, 0, "test", "c", "good"))[1].any()


def test_several_masks_are_united(tmp_path: Path) -> None:
    image = write(tmp_path / "a.png", texture(0, 40, 40))
    parts = []
    for number in range(2):
        mask = np.zeros((40, 40), np.uint8)
        mask[number * 20 : number * 20 + 10] = 255
        parts.append(write(tmp_path / f"{number}.png", mask))
    united = Decoding(40)(Record(image, tuple(parts), 1, "test", "c", "d"))[1]
    assert united.any(axis=1).nonzero()[0].tolist() == [*range(10), *range(20, 30)]


def test_mask_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    image = write(tmp_path / "a.png", texture(0, 40, 50))
    mask = write(tmp_path / "m.png", np.zeros((20, 25), np.uint8))
    with pytest.raises(DataError, match=r"m\.png: 25x20 pixels, its image has 50x40"):
        Decoding(16)(Record(image, mask, 1, "test", "c", "d"))


def test_opencv_alone_would_not_notice(tmp_path: Path) -> None:
    """Why the end of a file is looked at: OpenCV hands back a picture for half a JPEG."""
    path = write(tmp_path / "a.jpg", texture(0, 200, 200))
    path.write_bytes(path.read_bytes()[:3000])
    assert cv2.imread(str(path)) is not None
    with pytest.raises(DataError):
        read_image(path)
