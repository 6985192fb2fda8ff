"""Thresholds from normal images, and storage of what calibration found."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from data_modules import MVTecAD
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.photograph import Numbers, finding_of
from lightning_ad.detector.thresholds import (
    conformal_quantile,
    images_for,
    keep_scores,
    p_values,
    require_movable,
    set_thresholds,
)
from lightning_ad.experiment.calibrate import calibrate
from tests.fakes import write_mvtec
from tests.methods.tiny import Brightness


@pytest.mark.parametrize("count", [19, 99, 150])
def test_conformal_quantile_keeps_its_false_alarm_rate(count):
    generator = torch.Generator().manual_seed(0)
    rate, alarms = 0.1, []
    for _ in range(2000):
        scores = torch.rand(count + 1, generator=generator)
        alarms.append(float(scores[0]) > conformal_quantile(scores[1:], rate))
    expected = 1 - math.ceil((count + 1) * (1 - rate)) / (count + 1)
    assert expected <= rate
    assert sum(alarms) / len(alarms) == pytest.approx(expected, abs=0.02)


def test_conformal_quantile_counts_the_new_score_too():
    assert conformal_quantile(torch.arange(1.0, 11).flip(0), 0.2) == 9  # of 11 x 0.8 = 8.8


def test_a_rate_that_images_just_vouch_for_gets_their_largest_rank():
    """Of n normal scores, k / (n + 1) is the rate of all that is above the (n + 1 - k)-th."""
    for count in (5, 9, 14, 19, 28, 99):
        for above in range(1, count + 1):
            scores = torch.arange(1.0, count + 1)
            assert conformal_quantile(scores, above / (count + 1)) == count + 1 - above


def test_too_few_scores_give_the_largest():
    assert conformal_quantile(torch.tensor([1.0, 3.0, 2.0]), 0.01) == 3.0


def test_calibration_loads_tensors_of_any_shape_and_forgets_what_it_had():
    source, target = Calibration(), Calibration()
    source["bank"] = torch.randn(5, 7)
    source["ratio"] = torch.tensor(2.0)
    target["bank"] = torch.zeros(1)
    target["old"] = torch.zeros(3)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target["bank"], source["bank"]) and target["ratio"] == 2.0
    assert "old" not in target


def test_constants_and_thresholds_are_those_of_each_categorys_held_out_images(tmp_path):
    root = write_mvtec(tmp_path / "tree", train=24)
    data = MVTecAD(str(root), image_size=16, num_workers=0, cache=False, val_fraction=0.5)
    detector, extremes = Brightness(false_alarm_rate=0.2), {}
    detector.set_constants = extremes.update
    detector.meet(data, "fit")
    calibrate(detector, Trainer(accelerator="cpu", logger=False), data)
    held_out = [
        (path, int(category), image.abs().mean(0))
        for batch in data.val_dataloader()
        for path, category, image in zip(
            *map(batch.get, ("path", "category", "image")), strict=True
        )
    ]
    _, category, deviation = zip(*sorted(held_out, key=lambda one: one[0]), strict=True)
    category, deviation = torch.tensor(category), torch.stack(deviation)
    torch.testing.assert_close(extremes["pixel_min"], deviation.amin((1, 2)))
    torch.testing.assert_close(extremes["pixel_max"], deviation.amax((1, 2)))
    groups = [deviation[category == 0], deviation[category == 1], deviation]
    for threshold, pixel_threshold, group in zip(
        *(detector.calibration[f"{level}_threshold"] for level in ("image", "pixel")),
        groups,
        strict=True,
    ):
        ranked = group.amax((1, 2)).sort().values
        assert threshold == ranked[math.ceil(0.8 * (len(group) + 1)) - 1]
        assert pixel_threshold == ranked[math.ceil(0.8 * (len(group) + 1)) - 1]
        assert (group > pixel_threshold).flatten(1).any(1).float().mean() <= 0.2
    assert len({len(group) for group in groups}) > 1


def test_missing_calibration_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"no calibrated 'ratio'.*lightning fit"):
        Calibration()["ratio"]


def kept(scores, category=None):
    calibration = Calibration()
    number = torch.zeros(len(scores), dtype=torch.long) if category is None else category
    columns = {"score": scores, "pixels": scores[:, None], "category": number}
    keep_scores(calibration, columns, held_out=len(scores))
    return calibration


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
def test_thresholds_follow_the_rate_by_category(rate):
    scores = torch.arange(1.0, 60.0)[torch.randperm(59, generator=torch.Generator().manual_seed(3))]
    category = (scores > 40).long()  # 40 of the first, 19 of the second
    calibration = kept(scores, category)
    set_thresholds(calibration, 2, rate)
    for level in ("image", "pixel"):
        found = calibration[f"{level}_threshold"].tolist()
        # By hand: of n sorted scores 1 + offset ... n + offset the ceil((n + 1)(1 - rate))-th.
        expected = [offset + math.ceil((n + 1) * (1 - rate)) for n, offset in ((40, 0), (19, 40))]
        assert found == [*expected, math.ceil(60 * (1 - rate))]


def test_another_rate_moves_the_threshold_of_a_loaded_checkpoint():
    trained = Brightness(false_alarm_rate=0.1)
    trained.categories = ["bottle"]
    trained.calibration = kept(torch.arange(1.0, 100.0))
    trained.decision.set_thresholds()
    assert trained.decision.image_threshold(torch.tensor([0, -1])).tolist() == [90.0, 90.0]
    moved = Brightness(false_alarm_rate=0.3)
    moved.categories = ["bottle"]
    moved.load_state_dict(trained.state_dict())
    assert moved.decision.image_threshold(torch.tensor([0, -1])).tolist() == [70.0, 70.0]
    assert moved.decision.pixel_threshold(torch.tensor([0])).tolist() == [70.0]


@pytest.mark.parametrize(("rate", "refused"), [(0.01, False), (0.3, True)])
def test_an_earlier_checkpoint_keeps_its_rate_or_says_that_it_must(rate, refused):
    config = yaml.safe_dump({"model": {"init_args": {"false_alarm_rate": 0.01}}})
    checkpoint = {"config": config, "state_dict": {"calibration.image_threshold": torch.ones(2)}}
    with pytest.raises(ValueError, match=r"0\.3.*kept no scores") if refused else nullcontext():
        require_movable(checkpoint, rate)


def test_calibration_on_a_part_is_part_of_the_fingerprint():
    detector = Brightness()
    assert detector.fingerprint_fields(None) == {}
    detector.calibration = kept(torch.arange(5.0))
    assert detector.fingerprint_fields(None) == {}
    detector.calibration["held_out"] = torch.tensor(20)
    assert detector.fingerprint_fields(None) == {"calibrated_on": "5 of 20 held-out images"}


def test_p_values_count_normal_scores_and_agree_with_the_thresholds_of_every_rate():
    generator = torch.Generator().manual_seed(5)
    scores, category = torch.rand(60, generator=generator), torch.arange(60) % 3 // 2  # 40 and 20
    calibration = kept(scores, category)
    new = torch.cat([torch.rand(30, generator=generator), scores[:10], torch.tensor([-1.0, 2.0])])
    for number, group in ((0, category == 0), (1, category == 1), (-1, category >= 0)):
        found = p_values(calibration, new, torch.full((len(new),), number))
        own = scores[group].tolist()
        by_hand = [(1 + sum(s >= one for s in own)) / (1 + len(own)) for one in new.tolist()]
        assert found.tolist() == by_hand
        for rate in (0.05, 0.1, 0.25, 0.5):
            set_thresholds(calibration, 2, rate)
            above = new > calibration["image_threshold"][number]
            assert above.tolist() == [p <= rate for p in by_hand]


def test_without_normal_scores_there_are_no_p_values():
    found = p_values(Calibration(), torch.rand(2), torch.tensor([0, -1]))
    assert found.isnan().all()


@pytest.mark.parametrize(("held_out", "rate"), [(19, 0.05), (40, 0.1), (199, 0.01)])
def test_false_alarms_stay_at_the_stated_rate_over_many_calibrations(held_out, rate):
    """A thousand calibrations on scores of a skewed distribution, whose tail is known exactly."""
    generator = torch.Generator().manual_seed(19)
    shares = []
    for _ in range(1000):
        normal = torch.randn(held_out, generator=generator).exp()
        threshold = torch.tensor(conformal_quantile(normal, rate))
        shares.append(float(torch.special.ndtr(-threshold.log())))  # of all normal images above it
    share, spread = torch.tensor(shares).mean(), torch.tensor(shares).std()
    assert share <= rate + 2 * spread / 1000**0.5
    assert share > rate / 2 - 2 * spread / 1000**0.5  # it is no empty promise


def calibrated(scores, **decision):
    detector = Brightness(false_alarm_rate=0.1)
    detector.categories = ["bottle", "cable"]
    detector.calibration = kept(scores, torch.arange(len(scores)) % 2)
    detector.decision.set_thresholds()
    detector.decide_by(**decision)
    return detector


def test_a_threshold_moves_by_a_rate_or_by_hand_and_says_so():
    scores = torch.arange(1.0, 200.0)  # odd ones of bottles, even ones of cables
    category = torch.tensor([0, 1, -1])
    detector = calibrated(scores)
    assert detector.decision.source() == {"false_alarm_rate": 0.1, "threshold_from": "calibration"}
    assert detector.threshold(0.2, "bottle") == 161 and detector.threshold(0.2) == 160
    before = detector.decision.image_threshold(category)
    detector.decide_by(false_alarm_rate=0.2)
    assert detector.decision.image_threshold(category).tolist() == [161, 160, 160]
    assert before.tolist() != detector.decision.image_threshold(category).tolist()
    by_hand = calibrated(scores, threshold=3.5)
    assert by_hand.decision.image_threshold(category).tolist() == [3.5] * 3
    assert by_hand.decision.source() == {"false_alarm_rate": None, "threshold_from": "hand"}
    assert torch.equal(
        by_hand.decision.pixel_threshold(category),
        calibrated(scores).decision.pixel_threshold(category),
    )


def test_a_flagged_photograph_has_a_region_even_if_normal_ones_have_larger_values():
    """Nine normal maps of values 0 to 10 times their number; images are scored in another way."""
    detector = Brightness(false_alarm_rate=0.2)
    detector.categories = ["bottle"]
    columns = {"score": torch.arange(1.0, 10), "category": torch.zeros(9, dtype=torch.long)}
    pixels = torch.arange(1.0, 10)[:, None] * torch.linspace(0, 10, 1024)
    keep_scores(detector.calibration, columns | {"pixels": pixels}, held_out=9)
    detector.decision.set_thresholds()
    one = torch.tensor([0])
    strict, faint = detector.decision.pixel_threshold(one), detector.decision.faint_threshold(one)
    assert strict == 80  # the 8th largest value, and ...
    assert float((pixels > faint).float().mean()) == pytest.approx(0.2, abs=0.001)
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[4:9, 5:11], anomaly_map[12:15, 20:22] = 79, float(faint) - 0.01
    for score, peak, level, count in (
        (8.5, 79, faint, 1),
        (7.5, 79, strict, 0),
        (8.5, 81, strict, 1),
    ):
        anomaly_map[4, 5] = peak
        numbers = Numbers(score, 8.0, 0.1, float(strict), float(faint))
        found = finding_of(anomaly_map, numbers, 1)
        assert found.pixel_threshold == float(level) and len(found.regions) == count
        assert found.anomalous == (score > 8)
        assert sum(r.area for r in found.regions) == (anomaly_map > float(level)).sum()


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"false_alarm_rate": 1.0}, "between 0 and 1"),
        ({"threshold": math.nan}, "finite"),
        ({"false_alarm_rate": 0.1, "threshold": 3.0}, "exclude each other"),
        ({"smallest_region": 0}, "at least 1"),
    ],
)
def test_what_decides_nothing_is_refused(decision, message):
    with pytest.raises(ValueError, match=message):
        calibrated(torch.rand(9), **decision)


def test_a_moved_threshold_is_part_of_the_fingerprint_and_the_checkpoints_own_is_not():
    detector = calibrated(torch.rand(40))
    detector.decision.calibrated_rate = 0.1
    assert detector.fingerprint_fields(None) == {}
    detector.decide_by(false_alarm_rate=0.2)
    moved = detector.fingerprint_fields(None)
    detector.decide_by(threshold=0.5)
    assert {} != moved != detector.fingerprint_fields(None) != {}


def test_a_rate_that_few_images_cannot_vouch_for_is_said():
    detector = calibrated(torch.rand(40))
    assert images_for(0.05) == 19 and images_for(0.01) == 99 and images_for(0.3) == 3
    assert len(detector.decision.described()) == 1
    detector.decide_by(false_alarm_rate=0.04)
    assert "20 normal images" in detector.decision.described()[1]
    with pytest.warns(UserWarning, match="20 normal images of a category vouch for .* 4.76 %"):
        assert (
            detector.threshold(0.04, "cable") == detector.calibration["normal_scores"][1::2].max()
        )


def test_folds_part_the_training_images_and_score_each_by_the_others(tmp_path):
    root = write_mvtec(tmp_path / "tree", train=24)
    data = MVTecAD(str(root), image_size=16, num_workers=0, cache=False, val_fraction=0.3)
    detector, taught = Memory(folds=3), []
    detector.taught = taught
    detector.meet(data, "fit")
    calibrate(detector, Trainer(accelerator="cpu", logger=False), data)
    training = {str(record.image) for record in data.training_records()}
    held_out = {str(record.image) for record in data.held_out_records()}
    assert len(taught) == 4 and taught[3] == training
    folds = [training - part for part in taught[:3]]
    assert set.union(*folds) == training and sum(map(len, folds)) == len(training)
    for category in data.categories:
        sizes = [sum(f"/{category}/" in path for path in fold) for fold in folds]
        assert max(sizes) - min(sizes) <= 1
    assert len(detector.calibration["normal_scores"]) == len(training) + len(held_out)
    # An image that was taught scores 0, any other 1: no fold was scored by what it had taught.
    assert (detector.calibration["normal_scores"] == 1).all()


def test_folds_are_refused_by_what_trains_and_by_too_few_images(tmp_path):
    root = write_mvtec(tmp_path / "tree", train=4)
    data = MVTecAD(str(root), image_size=16, num_workers=0, cache=False)
    with pytest.raises(ValueError, match=r"model.folds is for methods that train nothing"):
        Brightness(folds=2).meet(data, "fit")
    with pytest.raises(ValueError, match=r"cannot be parted into 50 folds"):
        data.folds(50)


class Memory(Brightness):
    """Remembers images by their sums; a known one scores 0, any other 1."""

    def phases(self):
        return []

    def memory_passes(self, device):
        seen = Seen()
        yield seen
        self.taught.append(set(seen.paths))
        self.calibration["known"] = torch.tensor(seen.sums)

    def compare(self, image, category):
        own = image.sum((1, 2, 3))[:, None]
        known = torch.isclose(own, self.calibration["known"].to(own.device)).any(1)
        return None, {"pixel": 1 - known.float()[:, None, None, None].expand(-1, 1, 16, 16)}


class Seen(MemoryPass):
    def __init__(self):
        self.paths, self.sums = [], []

    def observe(self, image, category, path):
        self.paths += path
        self.sums += image.sum((1, 2, 3)).tolist()

    def finish(self):
        pass
