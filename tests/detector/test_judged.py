"""What is not judged is neither scored, nor calibrated on, nor counted."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import average_precision_score, roc_auc_score

from data_modules import Folder
from lightning_ad.detector.judged import JUDGED as JUDGED_KEY
from lightning_ad.detector.judged import judged_part
from lightning_ad.detector.normals import FLOOR, SMOOTHING, Moments
from lightning_ad.experiment.calibrate import calibrate
from lightning_ad.maths import maps
from lightning_ad.metrics.pixel import PixelMetrics
from tests import reference
from tests.fakes import texture, write
from tests.methods.tiny import Brightness

JUDGED = torch.zeros(3, 1, 12, 20, dtype=torch.uint8)
JUDGED[0, :, 2:10, 3:15] = 1
JUDGED[1, :, 5:6, :] = 1
JUDGED[2] = 1
HOLES = torch.ones(12, 20, dtype=torch.uint8)
HOLES[4:5, 6:9] = 0


def _images():
    """Images whose most anomalous pixels are where none is judged."""
    image = 0.5 * torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    return torch.where(JUDGED.bool(), image, 1.0)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_a_score_is_of_judged_pixels_alone(share):
    detector = Brightness(top_share=share)
    image = _images()
    found = detector.detect(image, torch.zeros(3, dtype=torch.long), JUDGED)
    for index in range(3):
        values = found.anomaly_map[index][JUDGED[index].bool()].sort(descending=True).values
        expected = values[: max(1, round(share * len(values)))].mean()
        assert found.score[index] == pytest.approx(float(expected), abs=1e-7)
    moved = torch.where(JUDGED.bool(), image, -1.0)
    again = detector.detect(moved, torch.zeros(3, dtype=torch.long), JUDGED)
    assert torch.equal(again.score, found.score)


def test_the_whole_is_scored_as_without_a_mark():
    detector, image = Brightness(top_share=0.07), torch.rand(2, 3, 9, 7)
    category = torch.zeros(2, dtype=torch.long)
    everywhere = torch.ones(2, 1, 9, 7, dtype=torch.uint8)
    assert torch.equal(
        detector.detect(image, category, everywhere).score, detector.detect(image, category).score
    )


def test_holes_take_the_smallest_judged_value():
    one = torch.arange(12.0).view(1, 3, 4)
    judged = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]).view(1, 3, 4)
    assert judged_part(one, judged).tolist() == [[[1, 2], [5, 1]]]


@pytest.mark.parametrize("given", [None, JUDGED])
def test_a_method_is_told_what_is_judged_of_a_part(given):
    class Mean(Brightness):
        def score(self, anomaly_map, parts):
            assert (JUDGED_KEY in parts) == (given is not None)
            judged = parts.get(JUDGED_KEY, torch.ones_like(anomaly_map))
            return (parts["pixel"] * judged).sum((1, 2, 3)) / judged.sum((1, 2, 3))

    image = torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    given = None if given is None else given & HOLES
    found = Mean().detect(image, torch.zeros(3, dtype=torch.long), given)
    for index in range(3):
        values = found.anomaly_map[index][... if given is None else given[index].bool()]
        assert found.score[index] == pytest.approx(float(values.mean()), abs=1e-6)


def test_pixel_metrics_count_judged_pixels_alone():
    generator = np.random.default_rng(0)
    scores = generator.random((3, 12, 20)).astype(np.float32)
    mask = generator.random((3, 12, 20)) > 0.8
    judged = torch.zeros(3, 12, 20, dtype=torch.uint8)
    judged[:, 2:10, 3:15] = 1
    metrics = PixelMetrics(exact=True)
    metrics.update(torch.tensor(scores), torch.tensor(mask), judged)
    found, inside = metrics.compute(), np.s_[:, 2:10, 3:15]
    truth, values = mask[inside].ravel(), scores[inside].ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(truth, values), abs=1e-9)
    assert found["pixel_auprc"] == pytest.approx(average_precision_score(truth, values), abs=1e-9)
    expected = reference.aupro(scores[inside], mask[inside], 0.3)
    assert found["pixel_aupro"] == pytest.approx(expected, abs=1e-9)


def test_calibration_sees_judged_pixels_alone(tmp_path):
    for number, shape in enumerate([(40, 20), (20, 40), (40, 20), (20, 40), (30, 30), (26, 39)]):
        write(tmp_path / f"train/{number}.png", texture(number, *shape))
    data = Folder(
        str(tmp_path),
        image_size=24,
        num_workers=0,
        val_fraction=0.5,
        eval_batch_size=3,
        cache=False,
    )
    detector, given = Brightness(), {}
    detector.set_constants = given.update
    detector.meet(data, "fit")
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    calibrate(detector, trainer, data)
    expected = []
    for batch in data.val_dataloader():
        for image, judged in zip(batch["image"], batch["judged"], strict=True):
            expected.append(image.abs().mean(0)[judged[0].bool()])
    scores = detector.calibration["normal_scores"]
    assert scores.tolist() == pytest.approx([float(values.max()) for values in expected])
    for name, of in (("min", torch.amin), ("max", torch.amax), ("mean", torch.mean)):
        assert given[f"pixel_{name}"].tolist() == pytest.approx([float(of(v)) for v in expected])
    pixels = detector.calibration["normal_pixels"]
    assert pixels[:, 0].tolist() == pytest.approx([float(values.min()) for values in expected])
    for kept, values in zip(pixels, expected, strict=True):
        assert float(kept.median()) == pytest.approx(float(values.median()), abs=0.02)


def test_statistics_of_a_place_come_from_images_that_show_it():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(6, 1, 16, 16, generator=generator)
    judged = torch.ones(6, 1, 16, 16, dtype=torch.uint8)
    judged[:3, :, :, 8:] = 0  # three images are half as wide
    spoilt = torch.where(judged.bool(), values, 50.0)
    category = torch.zeros(6, dtype=torch.long)
    mean, deviation = Moments(spoilt, category, 1, judged).all()
    left, right = values[..., :8].mean(0), values[3:, ..., 8:].mean(0)
    plain = torch.cat([left, right], -1)[None]
    sigma = SMOOTHING * 16
    torch.testing.assert_close(mean[:1], maps.gaussian_blur(plain, sigma))
    variance = torch.cat(
        [values[..., :8].var(0, unbiased=False), values[3:, ..., 8:].var(0, unbiased=False)], -1
    )[None]
    expected = maps.gaussian_blur(variance, sigma).sqrt() + FLOOR * variance.mean().sqrt()
    torch.testing.assert_close(deviation[:1], expected)
    others, _ = Moments(spoilt, category, 1, judged).without(spoilt, category, judged)
    torch.testing.assert_close(
        others[5:], maps.gaussian_blur(
            torch.cat([values[:5, ..., :8].mean(0), values[3:5, ..., 8:].mean(0)], -1)[None], sigma
        ),
    )  # fmt: skip
