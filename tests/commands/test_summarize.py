"""Means and deviations over runs are NumPy's, and unlike runs are never averaged."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
import yaml

from data_modules import MVTecAD
from data_modules.neighbour import neighbour_auroc
from lightning_ad.commands import baselines
from lightning_ad.commands.summarize import main
from tests.fakes import write_mvtec

METRICS = ("image_auroc", "pixel_aupro")


def write_run(
    root, name, category, seed, values, method="DDAD", image_size=64, guidance=3.0, speed=None
):
    folder = root / name
    folder.mkdir(parents=True)
    numbers = {f"test/{category}/{m}": v for m, v in zip(METRICS, values, strict=True)}
    numbers |= {f"test/mean/{m}": v for m, v in zip(METRICS, values, strict=True)}
    data = {"data_set": "MVTecAD", "categories": [category], "image_size": image_size, "test": name}
    definition = {"fingerprint": f"{category}-{image_size}", "protocol": "default", "data": data}
    numbers |= {"test/images_per_second": speed} if speed else {}
    (folder / "metrics.json").write_text(json.dumps(numbers | definition | {"images": 9}))
    config = {
        "seed_everything": seed,
        "model": {
            "class_path": f"lightning_ad.methods.x.{method}",
            "init_args": {"guidance": guidance},
        },
        "data": {"class_path": "MVTecAD", "init_args": {"batch_size": 4}},
        "trainer": {"max_epochs": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def six(tmp_path):
    values = np.random.default_rng(0).uniform(0.5, 1, size=(2, 3, 2)).round(6)
    for i, category in enumerate(("bottle", "grid")):
        for seed in range(3):
            write_run(tmp_path, f"{category}/{seed}", category, seed, values[i, seed].tolist())
    return tmp_path, values


def summary(capsys, *arguments):
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def rows(capsys, root):
    return list(csv.DictReader(io.StringIO(summary(capsys, root, "--format=csv"))))


def test_means_and_deviations_are_numpys(six, capsys):
    root, values = six
    per_row = {"bottle": values[0], "grid": values[1], "mean": values.mean(0)}
    found = rows(capsys, root)
    assert [row["category"] for row in found] == ["bottle", "grid", "mean"]
    for row in found:
        assert row["seeds"] == "3" and row["method"] == "DDAD" and row["data"] == "MVTecAD"
        for column, metric in enumerate(METRICS):
            sample = per_row[row["category"]][:, column]
            assert float(row[metric]) == pytest.approx(sample.mean(), abs=1e-12)
            assert float(row[f"{metric}_std"]) == pytest.approx(sample.std(ddof=1), abs=1e-12)


@pytest.mark.parametrize(
    "style, between", [("terminal", " ± "), ("markdown", " ± "), ("latex", r" \pm ")]
)
def test_every_format_shows_mean_and_deviation(six, capsys, style, between):
    root, values = six
    text = summary(capsys, root, f"--format={style}")
    for sample in (values[0, :, 0], values[1, :, 1], values.mean(0)[:, 0]):
        assert f"{100 * sample.mean():.2f}{between}{100 * sample.std(ddof=1):.2f}" in text


def test_latex_escapes_names(six, capsys):
    header = next(line for line in summary(capsys, six[0], "--format=latex").splitlines()
                  if line.startswith("data"))  # fmt: skip
    assert r"image\_auroc" in header and header.endswith(r" \\")


def test_the_table_may_go_to_a_file(six, capsys, tmp_path):
    file = tmp_path / "tables" / "summary.md"
    assert summary(capsys, six[0], "--format=markdown", f"--output={file}") == ""
    assert file.read_text() == summary(capsys, six[0], "--format=markdown")


def test_a_stray_run_of_another_image_size_is_refused_by_name(six, capsys):
    stray = write_run(six[0], "stray", "grid", 3, [0.9, 0.9], image_size=32)
    with pytest.raises(SystemExit) as refused:
        main([str(six[0])])
    message = str(refused.value)
    assert str(stray) in message and "data.image_size is 32" in message and "64" in message
    assert f"{six[0] / 'grid/1'}:" not in message
    assert capsys.readouterr().out == ""


def test_a_category_measured_at_another_size_is_refused_too(six):
    for seed in range(2):
        write_run(six[0], f"tile/{seed}", "tile", seed, [0.9, 0.9], image_size=32)
    with pytest.raises(SystemExit, match=r"tile/0: data.image_size is 32"):
        main([str(six[0])])


def test_a_mean_over_some_categories_says_so_and_is_not_the_best_of_all(six, capsys):
    for method in ("D3AD", "PaDiM"):
        write_run(six[0], method, "bottle", 0, [0.99, 0.99], method=method)
    table = summary(capsys, six[0], "--format=markdown")
    cells = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()]
    means = {(c[0], c[1]): c[3:] for c in cells if c and c[0].startswith("mean")}
    assert list(means) == [
        ("mean", "DDAD"), ("mean (1 of 2)", "D3AD"), ("mean (1 of 2)", "PaDiM")
    ]  # fmt: skip
    assert not any(cell.startswith("**") for cell in means["mean", "DDAD"])  # has no rival
    assert means["mean (1 of 2)", "D3AD"] == ["**99.00**", "**99.00**"]  # of the same bottle
    write_run(six[0], "other", "grid", 0, [0.1, 0.1], method="DRAEM")
    table = summary(capsys, six[0], "--format=markdown")
    line = next(line for line in table.splitlines() if "1 of 2" in line and "DRAEM" in line)
    assert "*" not in line


def test_methods_stand_side_by_side(six, capsys):
    write_run(six[0], "d3ad", "bottle", 0, [0.9, 0.8], method="D3AD")
    found = [(row["category"], row["method"], row["seeds"]) for row in rows(capsys, six[0])]
    assert found[:2] == [("bottle", "D3AD", "1"), ("bottle", "DDAD", "3")]


def test_one_run_has_no_deviation(tmp_path, capsys):
    write_run(tmp_path, "only", "bottle", 0, [0.9, 0.8])
    assert rows(capsys, tmp_path)[0]["image_auroc_std"] == ""
    text = summary(capsys, tmp_path)
    assert "90.00" in text and "90.00 ±" not in text


def test_other_settings_get_a_row_of_their_own(six, capsys):
    write_run(six[0], "strong", "bottle", 0, [0.9, 0.8], guidance=9.0)
    assert {row["method"] for row in rows(capsys, six[0])} == {
        "DDAD guidance=3",
        "DDAD guidance=9",
    }


def test_undefined_metrics_do_not_spoil_the_mean(tmp_path, capsys):
    write_run(tmp_path, "a", "bottle", 0, [0.5, None])
    write_run(tmp_path, "b", "grid", 0, [0.7, 0.8])
    write_run(tmp_path, "c", "tile", 0, [float("nan"), 0.6])
    found = {row["category"]: row for row in rows(capsys, tmp_path)}
    assert found["bottle"]["pixel_aupro"] == "" and found["tile"]["image_auroc"] == ""
    assert float(found["mean"]["image_auroc"]) == pytest.approx(0.6)
    assert float(found["mean"]["pixel_aupro"]) == pytest.approx(0.7)


def test_an_incomplete_seed_is_left_out_of_the_mean_and_named(six, capsys):
    root, values = six
    write_run(root, "late", "grid", 7, [0.1, 0.1])
    text = summary(capsys, root)
    assert "seed 7 lacks bottle" in text
    mean = {row["category"]: row for row in rows(capsys, root)}["mean"]
    assert float(mean["image_auroc"]) == pytest.approx(values.mean(0)[:, 0].mean())


def test_the_same_seed_twice_is_refused(six):
    write_run(six[0], "copy", "grid", 1, [0.9, 0.9])
    with pytest.raises(SystemExit, match=r"repeats DDAD on MVTecAD grid with seed 1"):
        main([str(six[0])])


@pytest.mark.parametrize(
    "file, content",
    [("metrics.json", '{"test/grid'), ("config.yaml", "model: 3"), ("config.yaml", None)],
)
def test_an_unreadable_run_is_named(six, file, content):
    broken = six[0] / "grid/0" / file
    broken.write_text(content) if content else broken.unlink()
    with pytest.raises(SystemExit, match="grid/0 is no finished run"):
        main([str(six[0])])


def test_a_folder_without_runs_is_named(tmp_path):
    with pytest.raises(SystemExit, match=f"no metrics.json below {tmp_path}"):
        main([str(tmp_path)])


@pytest.fixture
def rivals(tmp_path):
    """Two methods on two categories: which is better differs."""
    write_run(tmp_path, "a", "bottle", 0, [0.9, 0.5], speed=3.0)
    write_run(tmp_path, "b", "grid", 0, [0.6, 0.5], speed=5.0)
    write_run(tmp_path, "c", "bottle", 0, [0.8, 0.5], method="D3AD")
    write_run(tmp_path, "d", "grid", 0, [0.7, None], method="D3AD")
    return tmp_path


def test_the_best_of_each_category_is_marked_ties_too(rivals, capsys):
    lines = summary(capsys, rivals, "--format=markdown").splitlines()
    cells = {tuple(line.split(" | ")[1:3]): line.split(" | ")[4:] for line in lines if "|" in line}
    assert cells["bottle", "DDAD"][:2] == ["**90.00**", "**50.00**"]
    assert cells["bottle", "D3AD"][:2] == ["80.00", "**50.00**"]
    assert cells["grid", "D3AD"][:2] == ["**70.00**", "-"]
    assert cells["mean", "D3AD"][:2] == ["**75.00**", "**50.00**"]
    assert r"$\mathbf{90.00}$" in summary(capsys, rivals, "--format=latex")
    assert "90.00 *" in summary(capsys, rivals)


def test_nothing_is_best_of_one_or_of_what_was_measured_otherwise(six, capsys):
    write_run(six[0], "large", "bottle", 0, [0.9, 0.8], method="D3AD", image_size=256)
    assert "**" not in summary(capsys, six[0], "--format=markdown")


def test_speed_is_a_column_and_averaged(rivals, capsys):
    found = {(row["category"], row["method"]): row for row in rows(capsys, rivals)}
    assert float(found["mean", "DDAD"]["images_per_second"]) == pytest.approx(4.0)
    assert found["bottle", "D3AD"]["images_per_second"] == ""
    assert "| 5.0 |" in summary(capsys, rivals, "--format=markdown")


def test_one_metric_is_a_table_of_categories_by_methods(rivals, capsys):
    text = summary(capsys, rivals, "--metric=image_auroc", "--format=markdown")
    assert text.splitlines()[:7] == [
        "**image_auroc on MVTecAD**",
        "",
        "| category | D3AD | DDAD |",
        "| --- | --- | --- |",
        "| bottle | 80.00 | **90.00** |",
        "| grid | **70.00** | 60.00 |",
        "| mean | **75.00** | **75.00** |",
    ]
    with pytest.raises(SystemExit, match="no run has auroc"):
        main([str(rivals), "--metric=auroc"])


def test_a_test_of_other_settings_is_kept_apart(six, capsys):
    root, values = six
    tested = write_run(root, "bottle/0/test-1", "bottle", 0, [0.1, 0.1], image_size=32)
    config = yaml.safe_load((tested / "config.yaml").read_text())
    config["model"]["init_args"]["guidance"] = 9.0
    config["trainer"] = {"max_epochs": None}
    (tested / "config.yaml").write_text(yaml.safe_dump(config))
    found = {(row["category"], row["method"]): row for row in rows(capsys, root)}
    apart = found["bottle", "DDAD (test: guidance: 3.0 -> 9.0)"]
    assert apart["seeds"] == "1" and float(apart["image_auroc"]) == 0.1
    own = found["bottle", "DDAD"]
    assert own["seeds"] == "3" and float(own["image_auroc"]) == pytest.approx(
        values[0, :, 0].mean()
    )


def test_a_test_of_some_images_is_kept_apart(six, capsys):
    part = write_run(six[0], "part", "bottle", 3, [0.1, 0.1])
    results = json.loads((part / "metrics.json").read_text())
    results |= {"part": "4 of 30 test images", "part_names": "0", "fingerprint": "of a part"}
    (part / "metrics.json").write_text(json.dumps(results))
    found = {(row["category"], row["method"]): row["seeds"] for row in rows(capsys, six[0])}
    assert found["bottle", "DDAD (test: only 4 of 30 test images)"] == "1"
    assert found["bottle", "DDAD"] == "3"


def test_names_are_shown_as_they_are(tmp_path, capsys):
    write_run(tmp_path, "a", "screw[left] [/left]", 0, [0.9, 0.5])
    for style in ("terminal", "markdown"):
        assert "screw[left] [/left]" in summary(capsys, tmp_path, f"--format={style}")


def write_tested(root, name, data, method="DDAD"):
    """A run on real images, as `fit` writes it; its folder."""
    folder = write_run(root, name, data.categories[0], 0, [0.9, 0.5], method=method)
    results = json.loads((folder / "metrics.json").read_text())
    results["test_files"] = data.files_hash("test")
    (folder / "metrics.json").write_text(json.dumps(results))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    init_args = {"root": str(data.root), "category": data.category, "image_size": 16}
    config["data"] = {"class_path": f"data_modules.{data.data_set}", "init_args": init_args}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def bottles(tmp_path):
    return MVTecAD(str(write_mvtec(tmp_path / "mvtec")), category="bottle", image_size=16)


def test_the_trivial_neighbour_stands_beside_the_methods(bottles, tmp_path, capsys, monkeypatch):
    write_tested(tmp_path / "runs", "a", bottles)
    expected = neighbour_auroc(bottles)["bottle"]
    text = summary(capsys, tmp_path / "runs")
    assert "16-px grey neighbour" in text and f"{100 * expected:.2f}" in text
    monkeypatch.setattr(baselines, "neighbour_auroc", None)  # not called again
    found = {(row["category"], row["method"]): row for row in rows(capsys, tmp_path / "runs")}
    for category in ("bottle", "mean"):
        row = found[category, "16-px grey neighbour"]
        assert float(row["image_auroc"]) == pytest.approx(expected) and row["pixel_aupro"] == ""
    text = summary(capsys, tmp_path / "runs", "--format=markdown")
    line = next(line for line in text.splitlines() if "| DDAD |" in line)
    assert "| 50.00 |" in line  # of its pixels there is nothing to be better than
    by_pixels = summary(capsys, tmp_path / "runs", "--metric=pixel_aupro")
    assert "neighbour" not in by_pixels.partition("in percent")[0]


def test_padim_is_advised_where_it_is_missing(bottles, tmp_path, capsys):
    file = write_tested(tmp_path / "runs", "a", bottles) / "config.yaml"
    config = yaml.safe_load(file.read_text())
    seen = {"root": str(bottles.root), "category": "bottle", "image_size": 16, "val_fraction": 0.2}
    config["data"]["init_args"] = seen | {"batch_size": 4, "roi": None}
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    advice = f"--data.root={bottles.root} --data.category=bottle --data.image_size=16"
    told = summary(capsys, tmp_path / "runs")
    assert advice in told and "--model.features.weights=wheel" in told
    assert "--data.val_fraction=0.2 --model" in told
    write_tested(tmp_path / "runs", "b", bottles, method="PaDiM")
    assert "lightning fit" not in summary(capsys, tmp_path / "runs")


@pytest.mark.parametrize("trouble", ["away", "others", "cut", "damaged", "own class"])
def test_no_summary_fails_for_its_data(bottles, tmp_path, capsys, trouble):
    run = write_tested(tmp_path / "runs", "a", bottles)
    first = next(path for path in sorted(bottles.root.rglob("test/good/*.png")))
    if trouble == "away":
        shutil.rmtree(bottles.root)
    elif trouble == "others":
        first.write_bytes(first.read_bytes() + b"more")
    elif trouble == "cut":
        first.write_bytes(b"")
        results = json.loads((run / "metrics.json").read_text())
        results["test_files"] = bottles.files_hash("test")
        (run / "metrics.json").write_text(json.dumps(results))
    elif trouble == "damaged":
        (tmp_path / "runs/neighbour.json").write_text('{"a')
    else:
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("data_modules.MVTecAD", "os.system"))
    text = summary(capsys, tmp_path / "runs")
    assert "90.00" in text
    assert ("no 16-px grey neighbour: " in text) == (trouble != "damaged")
