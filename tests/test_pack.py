"""A pack holds what another machine lacks, in so many megabytes, and starts there by itself."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from benchmarks.pack import contents, wheels
from benchmarks.pack.__main__ import main
from benchmarks.pack.images import open_data
from benchmarks.pack.problems import PackError
from benchmarks.pack.weights import named_by
from data_modules import MTD
from data_modules.reading.images import Decoding
from lightning_ad.networks import FeaturePyramid
from tests import fakes
from tests.shrunk import fit_ddad

REPOSITORY = Path(__file__).parent.parent
PX = 64
PROBE = {
    "probe.py": "SAYS = 'installed'\n",
    "probe-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n",
    "probe-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "probe-1.0.dist-info/RECORD": "",
}
"""Files of the smallest wheel."""


def download_probe(pinned: list[str], folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "probe-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in PROBE.items():
            wheel.writestr(name, content)


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """Small MVTec AD and MTD."""
    fakes.write_mvtec(tmp_path / "data/mvtec", ("bottle", "screw"), size=90)
    fakes.write_mtd(tmp_path / "data/mtd", size=90)
    return tmp_path / "data"


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes that name a backbone and a folder of weights by variables, and these weights."""
    state = timm.create_model("resnet18").state_dict()
    save_file(
        {name: value.contiguous() for name, value in state.items()}, tmp_path / "net.safetensors"
    )
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/config.json").write_text("{}")
    save_file({"weight": torch.rand(5, 5)}, tmp_path / "tiny/diffusion_pytorch_model.safetensors")
    monkeypatch.setenv("NET", str(tmp_path / "net.safetensors"))
    monkeypatch.setenv("TINY", str(tmp_path / "tiny"))
    folder = tmp_path / "recipes"
    folder.mkdir()
    features = {"backbone": "resnet18", "layers": [1, 2], "weights": "${oc.env:NET,weights/net}"}
    model = {
        "features": {"class_path": "FeaturePyramid", "init_args": features},
        "autoencoder": {"init_args": {"weights": "${oc.env:TINY,somebody/tiny}"}},
    }
    (folder / "one.yaml").write_text(yaml.safe_dump({"model": {"init_args": model}}))
    return folder


@pytest.fixture
def packed(trees: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(wheels, "download", download_probe)
    data = {name: open_data(name, ["bottle"], trees) for name in ("mvtec", "mtd")}
    contents.pack(tmp_path / "pack", data, named_by(recipes), PX, limit=10)
    return tmp_path / "pack"


def test_packed_data_are_the_data_at_the_size_in_use(packed: Path, trees: Path) -> None:
    for name in ("mvtec", "mtd"):
        there = {
            r.image.with_suffix(""): r
            for r in open_data(name, ["bottle"], packed / "data").records()
        }
        here = open_data(name, ["bottle"], trees)
        assert len(there) == len(here.records())
        decoding = Decoding(PX, here.mask_rule)
        for record in here.records():
            place = packed / "data" / name / record.image.relative_to(trees / name).with_suffix("")
            copy = there[place]
            assert (copy.split, copy.label, copy.defect) == (
                record.split,
                record.label,
                record.defect,
            )
            image, mask = decoding(record)
            packed_image, packed_mask = decoding(copy)
            assert cv2.imread(str(copy.image)).shape == (PX, PX, 3)
            assert np.abs(packed_image.astype(int) - image).mean() < 6
            assert np.array_equal(packed_mask, mask)
    tiles = [r.image.stem for r in MTD(str(packed / "data/mtd"), split="tiles").records_of("train")]
    assert tiles == [
        r.image.stem for r in MTD(str(trees / "mtd"), split="tiles").records_of("train")
    ]


def test_packed_weights_are_those_in_use_in_half_precision(packed: Path, tmp_path: Path) -> None:
    places = json.loads((packed / "weights.json").read_text())
    state = load_file(packed / places["NET"])
    whole = load_file(tmp_path / "net.safetensors")
    assert set(state) == {
        n for n in whole if n.split(".")[0] in ("conv1", "bn1", "layer1", "layer2")
    }
    assert state["conv1.weight"].dtype == torch.float16
    small = FeaturePyramid("resnet18", [1, 2], str(packed / places["NET"]))
    large = FeaturePyramid("resnet18", [1, 2], str(tmp_path / "net.safetensors"))
    image = torch.rand(1, 3, 32, 32)
    for pyramid in (small, large):
        pyramid.load_pretrained()
        pyramid.eval()
    for ours, theirs in zip(small(image), large(image), strict=True):
        torch.testing.assert_close(ours, theirs, atol=0.01, rtol=0.01)
    assert (packed / places["TINY"] / "config.json").read_text() == "{}"
    tiny = load_file(packed / places["TINY"] / "diffusion_pytorch_model.safetensors")
    assert tiny["weight"].dtype == torch.float16


@pytest.mark.whole
def test_the_launcher_installs_and_starts_the_table(packed: Path, tmp_path: Path) -> None:
    stub = packed / "project/benchmarks/reproduce"
    stub.mkdir(exist_ok=True)
    (stub / "__init__.py").touch()
    (stub / "__main__.py").write_text(
        "import json, os, sys, probe, lightning_ad, tests.fakes\n"
        "paths = [os.environ[name] for name in ('NET', 'TINY')]\n"
        "print(json.dumps([probe.SAYS, lightning_ad.__file__, paths, sys.argv[1:]]))\n"
        "sys.exit(3)\n"
    )
    moved = packed.rename(tmp_path / "elsewhere")
    bare = {
        name: value
        for name, value in os.environ.items()
        if name not in ("NET", "TINY", "PYTHONPATH")
    }
    for _ in range(2):  # the second time, it is installed
        process = subprocess.run(
            [sys.executable, str(moved / "run.py"), "--minutes", "2"],
            cwd=tmp_path, env=bare, capture_output=True, text=True,
        )  # fmt: skip
        assert process.returncode == 3, process.stderr
        says, module, paths, options = json.loads(process.stdout)
        assert says == "installed"
        assert Path(module).is_relative_to(moved / "project")
        assert all(Path(path).exists() and Path(path).is_relative_to(moved) for path in paths)
        assert options == [
            *("--root", str(moved / "data"), "--output", str(tmp_path / "results")),
            *("--minutes", "2"),
        ]


def test_a_pack_over_its_limit_says_what_is_largest_and_leaves_nothing(
    trees: Path, recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "download", download_probe)
    data = {"mvtec": open_data("mvtec", ["bottle"], trees)}
    with pytest.raises(
        PackError, match=r"over 1 \(--limit\); largest are weights/net\.safetensors"
    ):
        contents.pack(tmp_path / "pack", data, named_by(recipes), PX, limit=1)
    assert not list(tmp_path.glob("pack*"))


def test_missing_weights_and_data_are_named(
    recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NET", str(tmp_path / "absent.safetensors"))
    monkeypatch.delenv("TINY")
    with pytest.raises(PackError) as failed:
        named_by(recipes)
    assert f"NET, of one.yaml: there is no {tmp_path / 'absent.safetensors'}" in str(failed.value)
    assert "TINY, of one.yaml: there is no somebody/tiny" in str(failed.value)
    with pytest.raises(PackError, match="no recipes"):
        named_by(tmp_path / "nowhere")
    with pytest.raises(PackError, match="Give --root, or set MVTEC_ROOT"):
        open_data("mvtec", ["bottle"], tmp_path)


def test_what_is_there_stays(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(PackError, match="exists: remove it"):
        contents.pack(packed, {}, [], PX, limit=10)


def test_an_error_ends_the_command_with_a_line(
    recipes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MVTEC_ROOT", raising=False)
    monkeypatch.setattr("benchmarks.pack.__main__.RECIPES", recipes)
    assert main(["--output", str(tmp_path / "pack"), "--root", str(tmp_path / "nowhere")]) == 1
    assert "there is no folder" in capsys.readouterr().err


def test_wheels_are_those_that_the_given_packages_do_not_bring() -> None:
    pinned = dict(line.split("==") for line in wheels.missing(REPOSITORY))
    assert {"diffusers", "jsonargparse", "omegaconf", "rich", "regex"} <= pinned.keys()
    brought = {"torch", "torchvision", "numpy", "pillow", "huggingface-hub", "safetensors", "timm"}
    brought |= {"opencv-python-headless", "lightning", "torchmetrics", "filelock", "pyyaml"}
    heavy = {"scipy", "scikit-image", "wandb", "albumentations", "optuna", "pytest", "mypy"}
    assert pinned.keys().isdisjoint(brought | heavy)
    lock = (REPOSITORY / "requirements.lock").read_text()
    assert all(f"\n{name}=={version} " in lock for name, version in pinned.items())


WITHOUT = """
import sys
for name in ("albumentations", "optuna", "skimage", "wandb"):
    sys.modules[name] = None  # importing it fails
from lightning_ad.cli import main
main(sys.argv[1:])
"""


@pytest.mark.whole
def test_a_run_needs_nothing_that_is_left_out(trees: Path, tmp_path: Path) -> None:
    arguments = fit_ddad(trees / "mtd", tmp_path / "run", tmp_path / "cache")
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    assert (tmp_path / "run/metrics.json").exists()
