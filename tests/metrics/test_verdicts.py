"""Counts of verdicts by hand, their interval by its definition."""

import pytest
from scipy.stats import binom

from lightning_ad.metrics.verdicts import ImageVerdict, Verdicts, count_verdicts
from lightning_ad.reports.verdict_table import flagged

IMAGES = [
    *(ImageVerdict(f"g{i}", "bottle", "good", 0, "normal") for i in range(7)),
    *(ImageVerdict(f"h{i}", "bottle", "good", 0, "anomalous") for i in range(2)),
    *(ImageVerdict(f"s{i}", "bottle", "scratch", 1, "anomalous") for i in range(3)),
    ImageVerdict("s9", "bottle", "scratch", 1, "normal"),
    ImageVerdict("c", "cable", "cut", 1, "anomalous"),
    ImageVerdict("d", "cable", "cut", 1, "not judged"),
    ImageVerdict("e", "grid", "bent", 1, None),
]


def test_images_are_counted_by_category_and_kind():
    counts = count_verdicts(IMAGES, ["bottle", "cable", "grid"])
    assert list(counts) == ["bottle", "cable", "all"]
    bottle, whole = counts["bottle"].fields(), counts["all"].fields()
    assert (bottle["good"], bottle["good_passed"]) == (9, 7)
    assert (bottle["scratch/defective"], bottle["scratch/defects_found"]) == (4, 3)
    assert counts["cable"].fields()["not_judged"] == whole["not_judged"] == 1
    assert (whole["defective"], whole["defects_found"]) == (5, 4)


@pytest.mark.parametrize(("alarms", "good"), [(0, 20), (1, 20), (7, 50), (20, 20)])
def test_the_interval_ends_where_what_was_seen_becomes_unlikely(alarms, good):
    """Clopper and Pearson's definition: each tail has 2.5 %."""
    low, high = Verdicts(good=good, passed=good - alarms).false_alarms
    tails = 1 - binom.cdf(alarms - 1, good, low), binom.cdf(alarms, good, high)
    assert (low, tails[0])[alarms > 0] == pytest.approx((0, 0.025)[alarms > 0])
    assert (high, tails[1])[alarms < good] == pytest.approx((1, 0.025)[alarms < good])


def test_without_good_images_nothing_is_known_of_false_alarms():
    assert Verdicts().false_alarms == (0, 1)


def test_flagged_images_are_told_by_category_where_there_are_several():
    assert flagged({("a", "anomalous"): 5, ("a", "normal"): 78}) == ["5 of 83 flagged"]
    several = {("b", "normal"): 2, ("a", "anomalous"): 1, ("b", "anomalous"): 3}
    assert flagged(several) == ["4 of 6 flagged", "a: 1 of 1 flagged", "b: 3 of 5 flagged"]
    assert flagged({("a", None): 3}) == []
