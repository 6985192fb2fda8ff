"""Scoring outside of a Trainer: the same scores as the command line, on a host left as it was."""

import csv
import subprocess
import sys
import textwrap

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from lightning_ad import load_detector
from lightning_ad.cli import main
from tests.fakes import texture, write_mtd
from tests.shrunk import QUIET, fit_ddad

pytestmark = pytest.mark.whole

CROPPED = ("--data.resize=20", "--model.adaptation_epochs=0", "--trainer.max_epochs=1")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a DDAD that sees the central 16 pixels of images resized to 20."""
    folder = tmp_path_factory.mktemp("scorer")
    write_mtd(folder / "mtd")
    main(fit_ddad(folder / "mtd", folder / "run", folder / "cache", *CROPPED))
    return folder / "run/final.ckpt"


def write_photographs(folder):
    """Every kind of file, none of them square, some smaller than what the detector sees."""
    folder.mkdir()
    colour, small, high = texture(0, 31, 44), texture(1, 12, 9), texture(2, 60, 25)
    deep = colour.astype(np.uint16) * 257 - np.arange(44, dtype=np.uint16)[None, :, None] % 3
    kinds = {
        "colour.jpg": colour,
        "colour.png": colour,
        "colour.tif": high,
        "gray.png": high[..., 0],
        "gray.tif": colour[..., 1],
        "alpha.png": np.dstack([high, high[..., :1]]),
        "deep gray.png": deep[..., 0],
        "deep colour.tif": deep,
        "small.bmp": small,
    }
    for name, pixels in kinds.items():
        assert cv2.imwrite(str(folder / name), pixels)
    return folder


def test_a_file_scores_as_predict_scores_it(checkpoint, tmp_path):
    photographs = write_photographs(tmp_path / "photographs")
    data = ["--data=Folder", f"--data.root={photographs}", f"--run_dir={tmp_path}"]
    main(["predict", f"--ckpt_path={checkpoint}", *data, *QUIET])
    with (tmp_path / "predictions/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    detector = load_detector(checkpoint)
    for row in rows:
        found = detector.predict(row["path"])
        assert found.score == pytest.approx(float(row["score"]), abs=1e-6), row["path"]
        assert found.threshold == pytest.approx(float(row["threshold"]), abs=1e-6)
        assert found.anomalous == (row["anomalous"] == "1")
        assert found.anomaly_map.shape == cv2.imread(row["path"]).shape[:2]


def test_arrays_and_pil_images_score_as_their_file(checkpoint, tmp_path):
    folder, detector = write_photographs(tmp_path / "photographs"), load_detector(checkpoint)
    for name in ("colour.png", "gray.png", "alpha.png", "deep gray.png", "small.bmp"):
        path = folder / name
        expected = detector.predict(path).score
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        array = stored if stored.ndim == 2 else stored[..., [2, 1, 0, 3][: stored.shape[2]]]
        assert detector.predict(array).score == expected, name
        assert detector.predict(Image.open(path)).score == expected, name


def test_a_map_lies_where_the_detector_looked(checkpoint):
    detector = load_detector(checkpoint)
    lit = torch.zeros(1, 1, 16, 16)
    lit[..., 4, 10] = 1  # row 6, column 12 of 20, as two pixels to each side are cropped away
    detector.fuse = lambda parts, category: lit
    found = detector.predict(np.zeros((60, 100, 3), np.uint8)).anomaly_map
    unseen = np.isnan(found)
    assert unseen[:6].all() and unseen[-6:].all() and unseen[:, :10].all() and unseen[:, -10:].all()
    assert not unseen[9:-9, 15:-15].any()
    row, column = np.unravel_index(np.nanargmax(found), found.shape)
    assert 18 <= row < 21 and 60 <= column < 65


def test_regions_of_known_rectangles_lie_exactly_in_a_photograph_that_is_not_square(checkpoint):
    """Two rows and four columns of it to one of the frame, of which two at each side are cut."""
    detector = load_detector(checkpoint)
    lit = torch.zeros(1, 1, 16, 16)
    lit[..., 3:6, 8:12] = 1.0  # rows 5-7 and columns 10-13 of the 20 of the frame
    lit[..., 10, 1] = 2.0  # row 12, column 3
    detector.fuse = lambda parts, category: lit
    for level in ("image", "pixel"):
        detector.calibration[f"{level}_threshold"] = torch.full((2,), 0.45)
    found = detector.predict(np.zeros((40, 80, 3), np.uint8))
    assert found.verdict == "anomalous"
    small, large = found.regions
    assert large.box == (40, 10, 16, 6) and large.area == 16 * 6 and large.mask.all()
    assert large.centroid == (47.5, 12.5) and large.peak_value == 1.0
    assert large.share == 96 / np.isfinite(found.anomaly_map).sum()  # what the crop lets be seen
    assert small.peak_at[1] in (24, 25) and 12 <= small.peak_at[0] < 16


def test_gradients_are_off_and_training_parts_frozen(checkpoint):
    detector = load_detector(checkpoint)
    assert not any(parameter.requires_grad for parameter in detector.parameters())
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    assert not detector.detect(image, torch.tensor([-1])).score.requires_grad
    assert not any(module.training for module in detector.modules())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(1, 3, 32, 32), r"\(B, 3, 16, 16\), as the detector was trained on, not"),
        (torch.zeros(3, 16, 16), r"\(B, 3, 16, 16\)"),
        (torch.full((1, 3, 16, 16), 255.0), r"in \[-1, 1\], not from 255 to 255: scale"),
        (torch.full((1, 3, 16, 16), torch.nan), r"in \[-1, 1\], not from nan"),
    ],
)
def test_a_tensor_of_another_size_or_range_is_refused(checkpoint, image, message):
    with pytest.raises(ValueError, match=message):
        load_detector(checkpoint).detect(image, torch.tensor([-1]))


@pytest.mark.parametrize(
    ("photograph", "message"),
    [
        ("no file.png", "no file.png: no such file"),
        (np.zeros((8, 8, 2), np.uint8), r"\(H, W, 3\) .* not ndarray of shape \(8, 8, 2\)"),
        (np.zeros((8, 8, 3), np.float32), "its pixels are float32"),
        (Image.new("F", (8, 8)), "its pixels are float32"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_photograph_is_refused(checkpoint, photograph, message):
    with pytest.raises(ValueError, match=message):
        load_detector(checkpoint).predict(photograph)


def test_an_unknown_category_is_named(checkpoint):
    with pytest.raises(ValueError, match=r"category 'bottle' is none of the detector's, \['mtd'\]"):
        load_detector(checkpoint).predict(texture(0, 20, 20), "bottle")


@pytest.mark.parametrize("command", ["test", "predict"])
def test_another_image_size_than_the_checkpoints_is_refused(checkpoint, tmp_path, command):
    options = [f"--ckpt_path={checkpoint}", "--data.image_size=18", f"--run_dir={tmp_path}"]
    with pytest.raises(ValueError, match=r"trained on images of 16 pixels.*image_size is 18"):
        main([command, *options, *QUIET])


def test_a_checkpoint_without_its_method_says_which_is_missing(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["config"] = content["config"].replace("lightning_ad.methods.DDAD", "mine.Method")
    torch.save(content, tmp_path / "mine.ckpt")
    with pytest.raises(ValueError, match=r"mine.ckpt names 'mine.Method' in model"):
        load_detector(tmp_path / "mine.ckpt")


def python(code, *arguments):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_import_loads_no_more_than_it_needs_and_leaves_the_host_alone():
    code = """
        import signal, sys, warnings
        import cv2
        before = cv2.getNumThreads(), signal.getsignal(signal.SIGTERM), sys.excepthook
        filters = list(warnings.filters)
        from lightning_ad import AnomalyDetector, Detection, evaluate_maps, load_detector
        assert (cv2.getNumThreads(), signal.getsignal(signal.SIGTERM), sys.excepthook) == before
        print(*{name.partition(".")[0] for name in sys.modules})
    """
    loaded = set(python(code).split())
    assert "torch" in loaded
    assert not loaded & {"wandb", "albumentations", "skimage", "diffusers", "timm", "optuna"}


def test_a_photograph_is_scored_where_posix_is_not(checkpoint, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), texture(0, 20, 30))
    code = """
        import os, signal, sys
        for module, name in (signal, "SIGUSR1"), (signal, "SIGUSR2"), (os, "EX_TEMPFAIL"):
            delattr(module, name)
        sys.modules["resource"] = sys.modules["fcntl"] = None  # an import of them fails
        import cv2
        threads = cv2.getNumThreads()
        from lightning_ad import load_detector
        print(load_detector(sys.argv[1]).predict(sys.argv[2]).score)
        assert cv2.getNumThreads() == threads
        assert not {"albumentations", "skimage"} & set(sys.modules)
    """
    score = float(python(code, checkpoint, tmp_path / "a.png").splitlines()[-1])
    expected = load_detector(checkpoint).predict(tmp_path / "a.png").score
    assert score == pytest.approx(expected, abs=1e-6)
