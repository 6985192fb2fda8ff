"""What is typed means what it looks like, or is refused in a line."""

import re

import pytest
import torch
import yaml

from lightning_ad.cli import main
from lightning_ad.deployment.scorer import load_detector
from tests.fakes import write_btad, write_mtd, write_mvtec
from tests.shrunk import QUIET, REPOSITORY, fit_ddad


def printed(capsys, *arguments: str) -> dict:
    """The configuration that arguments of `fit` lead to."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *arguments, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("01", "01"),
        ("[01, 02]", ["01", "02"]),
        ("1_000", "1_000"),
        ("on", "on"),
        ("2024-01-02", "2024-01-02"),
        ("['007', bottle]", ["007", "bottle"]),
    ],
)
def test_names_that_look_like_something_else_stay_names(capsys, tmp_path, written, names):
    file = tmp_path / "own.yaml"
    file.write_text(
        "run_dir: 2025\ndata:\n  class_path: BTAD\n"
        f"  init_args: {{root: 08, image_size: 64, category: {written}}}\n"
    )
    experiment = f"--config={REPOSITORY / 'experiments/d3ad_btad.yaml'}"
    config = printed(capsys, experiment, f"--config={file}")
    assert config["data"]["init_args"]["category"] == names
    assert (config["data"]["init_args"]["root"], config["run_dir"]) == ("08", "2025")
    assert config["data"]["init_args"]["image_size"] == 64
    if isinstance(names, list):
        for typed in ([f"--data.category={written}"], ["--data.category", written]):
            assert printed(capsys, experiment, *typed)["data"]["init_args"]["category"] == names


@pytest.mark.whole
def test_several_categories_have_a_folder_that_can_be_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    roots = {"MVTecAD": write_mvtec(tmp_path / "mvtec"), "BTAD": write_btad(tmp_path / "btad")}
    for data, categories, folder in (
        ("MVTecAD", "[bottle,grid]", "bottle+grid"),
        ("BTAD", "[01,02]", "01+02"),
    ):
        arguments = fit_ddad(roots[data], tmp_path / "unused", tmp_path / "cache")
        arguments = [a for a in arguments if not a.startswith(("--run_dir", "--data.split"))]
        (tmp_path / "own.yaml").write_text("run_dir: runs/${data.init_args.category}\n")
        run_dir = f"--config={tmp_path / 'own.yaml'}"
        more = [f"--data={data}", f"--data.root={roots[data]}", f"--data.category={categories}"]
        main([*arguments, *more, run_dir, "--model.adaptation_epochs=0"])
        assert (tmp_path / "runs" / folder / "final.ckpt").exists()


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("--trainer.default_root_dir=elsewhere", "use --run_dir"),
        ("--weights_only=true", "has no effect"),
    ],
)
def test_an_option_without_effect_is_refused(tmp_path, option, advice):
    arguments = fit_ddad(tmp_path, tmp_path / "run", tmp_path / "cache", option)
    with pytest.raises(SystemExit, match=advice):
        main(arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.whole
@pytest.mark.parametrize("section", ["model", "data"])
def test_a_setting_of_another_version_is_named_in_a_line(tmp_path, section):
    main(fit_ddad(write_mtd(tmp_path / "mtd"), tmp_path / "run", tmp_path / "cache"))
    checkpoint = torch.load(tmp_path / "run/final.ckpt", weights_only=True)
    config = yaml.safe_load(checkpoint["config"])
    place = config["model"]["init_args"]["denoiser"] if section == "model" else config["data"]
    place["init_args"]["old_setting"] = 3
    checkpoint["config"] = yaml.safe_dump(config)
    checkpoint["trained_with"]["version"] = "9.9"
    torch.save(checkpoint, tmp_path / "old.ckpt")
    line = re.compile(rf"^\S*old.ckpt .*9\.9 wrote it: {section}.*'old_setting' is not accepted.*$")
    with pytest.raises(ValueError, match=line) as refused:
        main(["test", f"--ckpt_path={tmp_path / 'old.ckpt'}", *QUIET])
    assert "\n" not in str(refused.value)
    if section == "model":
        with pytest.raises(ValueError, match=line):
            load_detector(tmp_path / "old.ckpt")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.denoiser.base=high", "model.denoiser.base: expected int. Got value: high"),
        ("--model=DDDA", "model: there is no class DDDA"),
        ("--trainer.max_epochs=x", "trainer.max_epochs: expected int, not x"),
    ],
)
def test_a_value_that_does_not_serve_is_named_with_its_key(tmp_path, capsys, option, said):
    with pytest.raises(SystemExit):
        main(fit_ddad(tmp_path, tmp_path / "run", tmp_path / "cache", option))
    assert f"error: {said}\n" in capsys.readouterr().err
