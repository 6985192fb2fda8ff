"""Regions of maps with known rectangles, worked out by hand."""

import numpy as np
import pytest

from lightning_ad.maths.regions import mask_of, regions_above


def two_rectangles() -> np.ndarray:
    """A map (20, 50): rows 2-4 of columns 30-39, and rows 10-17 of column 5, on zeros."""
    anomaly_map = np.zeros((20, 50), np.float32)
    anomaly_map[2:5, 30:40] = 1.0
    anomaly_map[10:18, 5] = 2.0
    anomaly_map[4, 33] = 1.5
    anomaly_map[12, 5] = 7.0
    return anomaly_map


def test_rectangles_come_out_exactly():
    tall, wide = regions_above(two_rectangles(), 0.5)
    assert (tall.box, tall.area, tall.share) == ((5, 10, 1, 8), 8, 8 / 1000)
    assert (tall.centroid, tall.peak_at, tall.peak_value) == ((5, 13.5), (5, 12), 7.0)
    assert (wide.box, wide.area, wide.share) == ((30, 2, 10, 3), 30, 30 / 1000)
    assert (wide.centroid, wide.peak_at, wide.peak_value) == ((34.5, 3), (33, 4), 1.5)


def test_only_what_is_above_counts_and_corners_connect():
    anomaly_map = np.zeros((6, 6), np.float32)
    anomaly_map[1, 1] = anomaly_map[2, 2] = 1.0
    [one] = regions_above(anomaly_map, 0.9)
    assert one.box == (1, 1, 2, 2) and one.area == 2 and one.peak_at == (1, 1)
    assert one.mask.tolist() == [[True, False], [False, True]]
    assert regions_above(anomaly_map, 1.0) == []


@pytest.mark.parametrize(("smallest", "areas"), [(8, [8, 30]), (9, [30]), (31, [])])
def test_small_regions_are_left_out(smallest, areas):
    found = regions_above(two_rectangles(), 0.5, smallest)
    assert [region.area for region in found] == areas


def test_a_share_is_of_what_was_seen():
    anomaly_map = two_rectangles()
    anomaly_map[:, 45:] = np.nan
    assert regions_above(anomaly_map, 0.5)[0].share == 8 / 900


def test_regions_fill_the_mask_and_nothing_else():
    anomaly_map = two_rectangles()
    mask = mask_of(regions_above(anomaly_map, 0.5), anomaly_map.shape)
    np.testing.assert_array_equal(mask, 255 * (anomaly_map > 0.5))
    assert mask.dtype == np.uint8
