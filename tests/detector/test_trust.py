"""A checkpoint's configuration runs nothing that it was not made of."""

from pathlib import Path

import pytest
import yaml

from lightning_ad.detector.trust import UntrustedError, trusted_config

SOURCE = Path("from_elsewhere/final.ckpt")


def config(**changes):
    """What a DDAD's final checkpoint holds, with changed values by their dotted names."""
    whole = {
        "seed_everything": 0,
        "model": {
            "class_path": "lightning_ad.methods.DDAD",
            "init_args": {
                "denoiser": {
                    "class_path": "lightning_ad.networks.DiffusionUNet",
                    "init_args": {"image_size": 16, "multipliers": [1, 2]},
                },
                "features": {
                    "class_path": "lightning_ad.networks.FeaturePyramid",
                    "init_args": {"backbone": "resnet34.tv_in1k", "weights": "/w/os.pth"},
                },
                "guidance": {"bottle": 3.0},
                "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}},
            },
        },
        "data": {
            "class_path": "data_modules.MTD",
            "init_args": {"root": "data.mtd", "train_list": "os.system", "augment": None},
        },
        "evaluation": {"fpr_limit": 0.3},
        "trainer": {"precision": "32-true", "logger": {"class_path": "os.mkdir"}},
        "run_dir": "/elsewhere",
    }
    for name, value in changes.items():
        *parents, last = name.split("__")
        place = whole
        for parent in parents:
            place = place[parent]
        place[last] = value
    return yaml.safe_dump(whole)


def test_what_a_run_of_ours_writes_is_taken_and_nothing_else():
    taken = trusted_config(config(), SOURCE)
    assert sorted(taken) == ["data", "evaluation", "model", "seed_everything", "trainer"]
    assert taken["trainer"] == {"precision": "32-true"}
    assert taken["model"] == yaml.safe_load(config())["model"]


DENOISER = "model__init_args__denoiser"
OPTIMIZER = "model__init_args__optimizer"


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("model__class_path", "subprocess.Popen", "subprocess.Popen"),
        ("model__class_path", "os.system", "os.system"),
        ("model__class_path", "lightning_ad.published.pro_200_thresholds", "pro_200_thresholds"),
        ("model__class_path", "lightning_ad.methods.ddad.deepcopy", "deepcopy"),
        ("model__class_path", "lightning_ad.methods.absent.DDAD", "absent.DDAD"),
        ("model__class_path", ["os.system"], "os.system"),
        (DENOISER, "os.system", "os.system"),
        (DENOISER, "other.yaml", "other.yaml"),
        (DENOISER, {"class_path": "torch.nn.Linear", "init_args": {}}, "torch.nn.Linear"),
        (DENOISER, {"class_path": "Linear"}, "'Linear'"),
        (f"{DENOISER}__init_args__base", {"class_path": "timm.layers.Mlp"}, "timm.layers.Mlp"),
        (OPTIMIZER, "os._exit", "os._exit"),
        (OPTIMIZER, {"class_path": "subprocess.Popen", "init_args": {"args": "x"}}, "Popen"),
        (
            OPTIMIZER,
            {
                "class_path": "torch.optim.lr_scheduler.LambdaLR",
                "init_args": {"lr_lambda": "os._exit"},
            },
            "LambdaLR",
        ),
        (
            OPTIMIZER,
            {"class_path": "torch.optim.Adam", "dict_kwargs": {"hook": {"class_path": "os.abort"}}},
            "os.abort",
        ),
        ("data__class_path", "sympy.Lambda", "sympy.Lambda"),
        (
            "evaluation__exact",
            {"class_path": "lightning.pytorch.callbacks.LambdaCallback"},
            "Lambda",
        ),
        ("data__init_args__extra", {"a": [{"class_path": "os.system"}]}, "os.system"),
    ],
)
def test_foreign_names_are_refused_in_one_line(key, value, named):
    with pytest.raises(UntrustedError) as refused:
        trusted_config(config(**{key: value}), SOURCE)
    message = str(refused.value)
    assert named in message and str(SOURCE) in message and "--trust" in message
    assert "\n" not in message


def test_a_package_can_be_trusted_by_name():
    text = config(**{DENOISER: {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1}}})
    assert trusted_config(text, SOURCE, ["torch.nn"])["model"]
    for other in ("torch.n", "torch.nnx", "timm"):
        with pytest.raises(UntrustedError):
            trusted_config(text, SOURCE, [other])


def test_short_names_of_ours_are_taken():
    short = {
        "model__class_path": "DDAD",
        f"{DENOISER}__class_path": "DiffusionUNet",
        f"{OPTIMIZER}__class_path": "Adam",
        "data__class_path": "MTD",
    }
    assert trusted_config(config(**short), SOURCE)["data"]["class_path"] == "MTD"


@pytest.mark.parametrize(
    "key", ["data__init_args__root", "model__init_args__features", "seed_everything"]
)
def test_nothing_is_interpolated(key):
    with pytest.raises(UntrustedError, match=r"oc\.env:HOME.*interpolated"):
        trusted_config(config(**{key: "${oc.env:HOME}"}), SOURCE)


def bomb(levels):
    lines = ["model: {class_path: DDAD, init_args: &a0 [x, x, x, x, x, x, x, x, x, x]}"]
    lines += [f"a{n}: &a{n} [{', '.join(10 * [f'*a{n - 1}'])}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(12),
        "model: " + "[" * 1200 + "]" * 1200,
        "model: [",
        "[]",
        "model: 1",
        "",
        "model: {class_path: DDAD}\ndata: os.system",
    ],
)
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(UntrustedError, match=r"final\.ckpt"):
        trusted_config(text, SOURCE)
