"""Every experiment, shrunk, runs through fit, test and predict on its data set's layout."""

import json
from pathlib import Path

import pytest
import timm
import yaml

from lightning_ad.cli import main
from tests.fakes import TREES
from tests.shrunk import QUIET, REPOSITORY, shrink

EXPERIMENTS = sorted((REPOSITORY / "experiments").glob("*.yaml"))
PUBLISHED = sorted((REPOSITORY / "experiments/published").glob("*.yaml"))

PAPERS = [f for f in (*EXPERIMENTS, *PUBLISHED) if f.stem.startswith(("ddad", "d3ad", "texture"))]


@pytest.mark.parametrize("file", PAPERS, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_extractors_of_the_papers_have_torchvisions_weights(file: Path):
    features = yaml.safe_load(file.read_text())["model"]["init_args"]["features"]["init_args"]
    if features.get("weights", "pretrained") == "pretrained":
        published = timm.get_pretrained_cfg(features["backbone"])
        assert published.hf_hub_id.endswith(".tv_in1k")


@pytest.mark.whole
@pytest.mark.parametrize(
    "file", [*EXPERIMENTS, *PUBLISHED], ids=lambda f: f"{f.parent.name}-{f.stem}"
)
def test_experiment_runs(file: Path, tmp_path, autoencoder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = yaml.safe_load(file.read_text())
    data_set = config["data"]["class_path"].split(".")[-1]
    category = config["data"]["init_args"].get("category", "all")
    overrides = shrink(config, autoencoder)
    for part, images in (("TRAIN", 12), ("GOOD", 3), ("PER_DEFECT", 1)):
        monkeypatch.setattr(f"data_modules.synthetic.{part}", images)
    if data_set != "SyntheticTextures":  # which writes its own tree
        write, _, names = TREES[data_set]
        overrides.append(f"--data.root={write(tmp_path / 'tree')}")
        if category != "all":
            overrides.append(f"--data.category={names[0]}")
        if "categories" in config["model"]["init_args"].get("denoiser", {}).get("init_args", {}):
            known = len(names) if category == "all" else 1
            overrides.append(f"--model.denoiser.categories={known}")
    run = tmp_path / "run"
    main(["fit", f"--config={file}", f"--run_dir={run}", *overrides])
    checkpoint = f"--ckpt_path={run / 'final.ckpt'}"
    metrics = json.loads((run / "metrics.json").read_text())
    measured = {name: value for name, value in metrics.items() if name.startswith("test/")}
    assert "test/mean/image_auroc" in measured and None not in measured.values()
    main(["predict", checkpoint, f"--run_dir={tmp_path / 'predicted'}", *QUIET])
    assert (tmp_path / "predicted/predictions/predictions.csv").exists()
