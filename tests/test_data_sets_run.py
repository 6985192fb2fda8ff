"""Every data set's published layout passes through a whole experiment; categories stay apart."""

import json

import pytest

from lightning_ad.cli import main
from tests.fakes import TREES, write_mvtec
from tests.shrunk import QUIET, fit_ddad

pytestmark = pytest.mark.whole


def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def fit(name, root, run, cache):
    options = ["--model.adaptation_epochs=0", "--trainer.max_epochs=1"]
    command, config, *rest = fit_ddad(root, run, cache, *options)
    main([command, config, f"--data={name.split()[0]}", *rest])


@pytest.mark.parametrize("name", TREES)
def test_a_layout_passes_through_fit_and_test(tmp_path, name):
    root = TREES[name].write(tmp_path / "data")
    fit(name, root, tmp_path / "run", tmp_path / "cache")
    found = metrics(tmp_path / "run")
    assert 0 <= found["test/mean/image_auroc"] <= 1
    assert 0 <= found["test/mean/pixel_aupro"] <= 1


def test_mixed_categories_score_as_each_does_alone(tmp_path):
    root = write_mvtec(tmp_path / "data")
    fit("MVTecAD", root, tmp_path / "run", tmp_path / "cache")
    together = metrics(tmp_path / "run")
    checkpoint = f"--ckpt_path={tmp_path / 'run/final.ckpt'}"
    for category in ("bottle", "grid"):
        alone = tmp_path / category
        options = [f"--data.category={category}", f"--run_dir={alone}", "--data.batch_size=2"]
        main(["test", checkpoint, *options, *QUIET])
        keys = [key for key in together if key.startswith(f"test/{category}/")]
        assert len(keys) == 7
        for key in keys:
            assert metrics(alone)[key] == pytest.approx(together[key], abs=1e-6), key
