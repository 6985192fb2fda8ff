"""The benchmark has a row for each way to score, with numbers or with the reason of none."""

import os

import numpy as np
import pytest

from lightning_ad import load_detector
from lightning_ad.deployment import benchmark
from tests.shrunk import checkpoint_of

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, autoencoder):
    return checkpoint_of("PaDiM", tmp_path_factory.mktemp("benchmark"), autoencoder)


@pytest.fixture
def pixels(checkpoint):
    height, width = load_detector(checkpoint).framing.seen
    return np.zeros((8, height, width, 3), np.uint8)


def some_ways(monkeypatch, *names):
    monkeypatch.setattr(benchmark, "WAYS", {name: benchmark.WAYS[name] for name in names})


def test_each_way_is_measured_or_says_why_not(checkpoint, tmp_path, monkeypatch):
    some_ways(monkeypatch, "float32", "onnx")
    measured, lacking = benchmark.ways(checkpoint, tmp_path / "model.onnx", "cpu", seconds=0)
    assert (measured.way, lacking.way) == ("float32", "onnx")
    assert not measured.failure
    assert set(measured.seconds) == {1, 8} and min(measured.seconds.values()) > 0
    assert lacking.failure.endswith("model.onnx: 'lightning export' writes it")


@pytest.mark.parametrize("way", ["bf16", "compiled"])
def test_other_ways_are_measured_alike(checkpoint, pixels, tmp_path, monkeypatch, way):
    monkeypatch.setattr(benchmark, "_compiled", lambda detector: detector)  # takes minutes
    monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: None)  # this process goes on
    row = benchmark.measured(way, checkpoint, tmp_path, pixels, "cpu", 0)
    assert not row.failure and set(row.seconds) == {1, 8}


def test_a_way_that_fails_is_a_row_with_a_line(checkpoint, pixels, tmp_path, monkeypatch):
    def no_compiler(detector):
        raise RuntimeError("no compiler\nwas found")

    monkeypatch.setattr(benchmark, "_compiled", no_compiler)
    monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: None)  # this process goes on
    row = benchmark.measured("compiled", checkpoint, tmp_path, pixels, "cpu", 0)
    assert row == benchmark.Speed("compiled", {}, None, "no compiler")


def _die(*_):
    os._exit(9)


def test_a_way_whose_process_is_killed_is_a_row_too(checkpoint, tmp_path, monkeypatch):
    some_ways(monkeypatch, "float32")
    monkeypatch.setattr(benchmark, "measured", _die)
    (row,) = benchmark.ways(checkpoint, tmp_path / "model.onnx", "cpu", seconds=0)
    assert row.way == "float32" and "was killed" in row.failure
