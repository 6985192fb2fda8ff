"""The benchmark has a row for each way to score, with numbers or with the reason of none."""

import pytest

from lightning_ad.cli import main
from lightning_ad.deployment import benchmark
from tests.fakes import write_mtd
from tests.shrunk import fit_method

pytestmark = pytest.mark.whole


def test_each_way_is_measured_or_says_why_not(tmp_path, autoencoder, monkeypatch):
    def no_compiler(detector):
        raise RuntimeError("no compiler\nwas found")

    monkeypatch.setattr(benchmark, "_compiled", no_compiler)
    write_mtd(tmp_path / "mtd")
    main(fit_method("PaDiM", tmp_path, tmp_path / "run", autoencoder))
    checkpoint = tmp_path / "run/final.ckpt"
    rows = {
        speed.way: speed
        for speed in benchmark.ways(checkpoint, tmp_path / "model.onnx", "cpu", seconds=0)
    }
    assert list(rows) == ["float32", "bf16", "compiled", "onnx"]
    for way in ("float32", "bf16"):
        assert not rows[way].failure
        assert set(rows[way].seconds) == {1, 8} and min(rows[way].seconds.values()) > 0
    assert rows["compiled"].failure == "no compiler"
    assert rows["onnx"].failure.endswith("model.onnx: 'lightning export' writes it")
