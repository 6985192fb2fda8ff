"""What a picture shows: heat above the threshold alone, outlines, verdict and label."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lightning_ad.reports.drawing import (
    BLUE,
    OPACITY,
    UNJUDGED,
    WHITE,
    Picture,
    levels,
    scale_of,
    thumbnail,
    with_heat,
    with_truth,
)
from lightning_ad.reports.panel import LARGEST, Heading, panel

SIZE = (60, 90)


@pytest.fixture
def picture() -> Picture:
    """A red photograph, whose map is 1 but for a rectangle of 5; the threshold is 2."""
    anomaly_map = np.full(SIZE, 1, np.float32)
    anomaly_map[20:40, 30:70] = 5
    photograph = np.full((*SIZE, 3), (200, 40, 40), np.uint8)
    return Picture(
        photograph, anomaly_map, scale_of(2.0, anomaly_map), (anomaly_map > 2).astype("u1")
    )


def has(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) < 50).all(-1)  # lines are smoothed


def test_heat_is_drawn_above_the_threshold_alone(picture):
    drawn = with_heat(picture)
    grey = cv2.cvtColor(picture.photograph, cv2.COLOR_RGB2GRAY)[0, 0]
    outside = np.ones(SIZE, bool)
    outside[16:44, 26:74] = False  # the outline has a width
    assert (drawn[outside] == grey).all()
    inside = drawn[25:35, 36:64]
    assert (inside == inside[0, 0]).all() and inside[0, 0, 0] > inside[0, 0, 1]


@pytest.mark.parametrize("threshold", [2.0, 0.0, -2.0])
def test_one_scale_begins_at_the_threshold_for_all_maps(threshold):
    for top in (3, 300):
        anomaly_map = np.array([[-9, threshold, threshold + 0.1, top, np.nan]], np.float32)
        scale = scale_of(threshold, anomaly_map)
        assert scale == scale_of(threshold, np.zeros((1, 1), np.float32))
        drawn = levels(anomaly_map, scale)[0]
        assert drawn[0] == drawn[1] == drawn[4] == 0 < drawn[2] < drawn[3]
    assert drawn[3] == 255 and OPACITY[0] == 0 < OPACITY[1]


def test_without_a_threshold_the_scale_is_the_maps_own():
    anomaly_map = np.array([[1, np.nan, 3]], np.float32)
    assert scale_of(None, anomaly_map) == (1, 3, False)
    assert scale_of(None, np.full((1, 1), np.nan, np.float32)).low == 0


def test_found_regions_are_solid_and_true_defects_dashed(picture):
    truth = np.zeros(SIZE, np.uint8)
    truth[10:50, 10:80] = 1
    both = replace(picture, truth=truth)
    drawn = with_heat(both)
    assert has(drawn, WHITE)[19, 30:70].all()  # around the region
    edge = has(with_truth(both), BLUE)[9, 10:80]
    assert 0.2 < edge.mean() < 0.8
    assert has(drawn, BLUE).any() and not has(with_heat(picture), BLUE).any()
    assert not has(with_heat(replace(both, is_flagged=False)), WHITE).any()


def test_what_was_not_judged_is_dark(picture):
    anomaly_map = picture.anomaly_map.copy()
    anomaly_map[:, :20] = np.nan
    drawn = with_heat(replace(picture, anomaly_map=anomaly_map))
    assert drawn[5, 5, 0] == int(UNJUDGED * drawn[5, 80, 0])


@pytest.mark.parametrize(("height", "width", "side"), [(40, 300, 280), (300, 700, 300)])
def test_photographs_keep_their_pixels_or_grow_by_a_whole_factor(height, width, side):
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    map_ = np.zeros((height, width), np.float32)
    drawn = panel(
        Picture(noise, map_, scale_of(1.0, map_), map_.astype(np.uint8)),
        Heading("a.png", 0.5, 1.0, "normal", 0),
    )
    factor = side // height
    large = np.kron(noise, np.ones((factor, factor, 1), np.uint8))
    fit = cv2.matchTemplate(drawn, large, cv2.TM_SQDIFF)
    y, x = np.unravel_index(fit.argmin(), fit.shape)
    assert (drawn[y : y + large.shape[0], x : x + large.shape[1]] == large).all()


def black_panel(height, width):
    map_ = np.zeros((height, width), np.float32)
    photograph = np.zeros((height, width, 3), np.uint8)
    picture = Picture(photograph, map_, scale_of(1.0, map_), map_.astype(np.uint8))
    return panel(picture, Heading("a.png", 0.5, 1.0, "normal"))


def test_a_huge_photograph_is_made_smaller():
    assert 2 * LARGEST < black_panel(3000, 4200).shape[1] < 3 * LARGEST


@pytest.mark.parametrize("long", [100, 900, 3000, 9000])
def test_a_line_of_pixels_has_a_panel_that_can_be_looked_at(long):
    drawn = black_panel(long, 1)
    assert 0.9 * LARGEST < drawn.shape[0] < 2.2 * LARGEST and drawn.shape[1] < LARGEST
    drawn = black_panel(1, long)
    assert 2 * 0.9 * LARGEST < drawn.shape[1] < 2 * 2.2 * LARGEST and drawn.shape[0] < LARGEST


def test_a_thumbnail_keeps_a_region_of_a_pixel():
    map_ = np.zeros((960, 480), np.float32)
    map_[500, 200] = 9
    tall = Picture(
        np.zeros((960, 480, 3), np.uint8), map_, scale_of(1.0, map_), (map_ > 1).astype("u1")
    )
    drawn = thumbnail(tall)
    assert drawn.shape == (240, 2 * 120, 3)
    assert has(drawn, WHITE)[:, 120:].any() and not has(drawn, WHITE)[:, :120].any()


def test_verdict_and_label_are_said_apart():
    missed = Heading("a.png", 1.0, 2.0, "normal", 1, "scratch")
    assert missed.known() == "labelled defective (scratch)" and missed.mistake() == "MISSED DEFECT"
    assert Heading("a.png", 3.0, 2.0, "anomalous", 0).mistake() == "FALSE ALARM"
    for score, threshold, verdict, label in (
        *((3.0, 2.0, "anomalous", 1), (3.0, 2.0, "anomalous", None)),
        *((1.0, None, None, 1), (0.0, 2.0, "not judged", 1)),
    ):
        assert Heading("a", score, threshold, verdict, label).mistake() == ""
