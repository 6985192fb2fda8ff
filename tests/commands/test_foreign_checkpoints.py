"""Checkpoints from elsewhere produce one line and run nothing, whichever command reads them."""

import os
import pickle

import pytest
import torch
import yaml

from lightning_ad import load_detector
from lightning_ad.cli import main
from lightning_ad.detector.trust import UntrustedError
from lightning_ad.experiment.checkpoints import readable

DATA = {"class_path": "data_modules.MTD", "init_args": {"root": "nowhere"}}


def calling(path, /, **arguments):
    return {"class_path": path, "init_args": arguments}


def of_ddad(**arguments):
    return {"model": calling("lightning_ad.methods.DDAD", **arguments)}


FOREIGN = {
    "a program": {"model": calling("subprocess.Popen", args=["touch", "ran"])},
    "a function": of_ddad(denoiser=calling("os.mkdir", path="ran")),
    "a callable argument": of_ddad(
        optimizer=calling("sympy.Lambda", signature="x", expr="__import__('os').mkdir('ran')")
    ),
    "a class of timm": of_ddad(features=calling("timm.layers.Mlp", act_layer="os._exit")),
    "a data set": {"data": calling("lightning.pytorch.callbacks.LambdaCallback", setup="os.abort")},
    "a secret": {"data": calling("data_modules.MTD", root="${oc.env:HOME}")},
}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(sections):
        config = {"data": DATA, **of_ddad(), **sections}
        content = {"state_dict": {}, "method": "DDAD", "config": yaml.safe_dump(config)}
        torch.save(content, tmp_path / "final.ckpt")
        return tmp_path / "final.ckpt"

    return write


@pytest.mark.parametrize("sections", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("command", ["validate", "test", "predict", "load_detector"])
def test_a_foreign_configuration_ends_in_one_line(checkpoint, tmp_path, command, sections):
    path = checkpoint(sections)
    with pytest.raises(UntrustedError, match=r"final\.ckpt") as refused:
        if command == "load_detector":
            load_detector(path)
        else:
            main([command, f"--ckpt_path={path}"])
    assert "\n" not in str(refused.value) and os.environ["HOME"] not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["final.ckpt"]


def test_loggers_and_folders_of_a_checkpoint_are_not_used(checkpoint, tmp_path):
    elsewhere = str(tmp_path / "elsewhere")
    path = checkpoint(
        {
            "trainer": {
                "precision": None,
                "default_root_dir": elsewhere,
                "logger": calling("lightning.pytorch.loggers.CSVLogger", save_dir=elsewhere),
                "callbacks": [calling("lightning.pytorch.callbacks.LambdaCallback")],
            },
            "run_dir": elsewhere,
            "data": calling("data_modules.MTD", root="nowhere", cache_dir=elsewhere),
        }
    )
    with pytest.raises((SystemExit, ValueError)):  # neither networks nor tiles are there
        main(["test", f"--ckpt_path={path}"])
    assert not (tmp_path / "elsewhere").exists()


def test_a_package_is_let_through_where_it_is_named(checkpoint):
    path = checkpoint(of_ddad(denoiser=calling("torch.nn.Linear", in_features=1)))
    with pytest.raises(ValueError) as refused:
        load_detector(path, trust=["torch.nn"])
    assert not isinstance(refused.value, UntrustedError)
    for trust in (["--trust", "torch.nn"], ["--trust=torch.nn"]):
        with pytest.raises((SystemExit, ValueError)) as refused:  # a DDAD needs more than that
            main(["predict", f"--ckpt_path={path}", *trust])
        assert not isinstance(refused.value, UntrustedError)


class Opens:
    """Unpickling it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("content", [{"state_dict": {}, "epoch": Opens()}, Opens()])
def test_an_unfinished_phase_from_elsewhere_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "denoise.ckpt")
    with pytest.raises(ValueError, match=r"denoise\.ckpt cannot be read"):
        readable(tmp_path / "denoise.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"plain\.ckpt cannot be read"):
        readable(tmp_path / "plain.ckpt")
    assert not (tmp_path / "ran").exists()
