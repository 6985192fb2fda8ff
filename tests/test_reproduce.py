"""The table of results: what is worth most first, each in its share, nothing lost."""

import json
import shutil

import pytest

from benchmarks.reproduce import __main__ as reproduce
from benchmarks.reproduce import study, worker
from benchmarks.reproduce.cells import Cell, Part, cells, parts, share
from tests.fakes import write_mtd, write_mvtec

BOTTLE, TILES = Part("mvtec", "bottle"), Part("mtd", "tiles")


def test_a_first_seed_of_everything_comes_before_a_second_of_anything():
    where = parts(["mvtec", "mtd"], ["bottle"])
    assert where == [BOTTLE, TILES, Part("mtd", "published")]
    order = list(cells(["d3ad", "padim"], where, 2))
    assert order[0] == Cell("padim", BOTTLE, 0)
    assert [cell.seed for cell in order] == 6 * [0] + 6 * [1]
    assert len(set(order)) == 12


def test_what_a_method_leaves_goes_to_the_later_ones():
    padim, d3ad, ddad = (Cell(name, BOTTLE, 0) for name in ("padim", "d3ad", "ddad"))
    assert share(d3ad, [ddad], 100) == 50
    assert share(ddad, [], 70) == 70
    assert share(padim, [d3ad, ddad], 100) == pytest.approx(100 * 0.15 / 2.15)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Runs that find the same, but for texture, which fails; and a way to call them."""
    write_mvtec(tmp_path / "mvtec", ("bottle",))
    write_mtd(tmp_path / "mtd", good=6)
    told = []

    def run(arguments, folder):
        told.append(" ".join(arguments))
        if "texture" in told[-1]:
            return {"error": "the disk is full"}
        scores = {"image_auroc": 0.9, "pixel_auroc": None}
        metrics = {f"test/mean/{name}": value for name, value in scores.items()}
        metrics |= {"test/images_per_second": 3.0, "fingerprint": "abc"}
        took = {"trained_images": 1000, "trained_seconds": 60.0, "seconds": 90.0, "memory": 2**30}
        return took | {
            "metrics": metrics, "flops": 1e9, "matrix_rate": 4e9, "precision": "32-true"
        }  # fmt: skip

    monkeypatch.setattr(worker, "run", run)

    def call(*arguments):
        told.clear()
        options = ["--root", str(tmp_path), "--output", str(tmp_path / "out"), *arguments]
        return reproduce.main([*options, "--data", "mvtec", "--categories", "bottle"]), list(told)

    return call


def test_a_method_that_fails_stops_no_other_and_is_tried_again(ran, tmp_path):
    status, told = ran("--methods", "texture", "d3ad", "--minutes", "2")
    assert status == 1
    assert ["d3ad" in told[0], "texture" in told[1]] == [True, True]
    assert "--time 60s" in told[0] and "--time 120s" in told[1]
    text = (tmp_path / "out/results.md").read_text()
    assert "- texture-mvtec-bottle-0: the disk is full" in text
    assert "| D3AD | 90.0 | - | - | - | - |  |" in text
    assert "| d3ad-mvtec-bottle-0 | 1,000 | 1.0 | 1.5 | 3.0 | 1.0 | 25 % | 32-true | abc |" in text
    status, told = ran("--methods", "texture", "d3ad", "--minutes", "2")
    assert status == 1
    assert len(told) == 1 and "texture" in told[0]
    assert ran("--methods", "d3ad") == (0, [])


def test_numbers_of_other_recipes_are_never_taken(ran, tmp_path, monkeypatch):
    assert len(ran("--methods", "d3ad", "--recipes", "cpu")[1]) == 1
    assert len(ran("--methods", "d3ad", "--recipes", "gpu")[1]) == 1
    assert len(ran("--methods", "d3ad", "--recipes", "cpu")[1]) == 0
    recipe = tmp_path / "d3ad_cpu.yaml"
    shutil.copy(study.FOR_A_CPU / recipe.name, recipe)
    monkeypatch.setattr(study, "FOR_A_CPU", tmp_path)
    recipe.write_text(recipe.read_text().replace("channels: 32", "channels: 16"))
    _, (told,) = ran("--methods", "d3ad", "--recipes", "cpu")
    assert "--overwrite=True" in told


def test_the_table_goes_between_its_lines_of_a_page(ran, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Results\n\nBefore.\n\n{study.START}\n\nold\n\n{study.END}\n\nAfter.\n")
    for methods in (["d3ad"], ["d3ad", "ddad"]):
        ran("--methods", *methods, "--write", str(page))
    text = page.read_text()
    assert text.startswith("# Results\n\nBefore.\n\n") and text.endswith("\n\nAfter.\n")
    assert "old" not in text and text.count("| DDAD |") == 1
    rows = json.loads((tmp_path / "out/results.json").read_text())
    assert [row["cell"][0] for row in rows] == ["d3ad", "ddad"]


def test_seeds_make_a_mean_and_a_deviation(ran, tmp_path):
    ran("--methods", "d3ad", "--seeds", "2")
    assert "| D3AD | 90.0 ± 0.0 |" in (tmp_path / "out/results.md").read_text()


def test_a_method_without_a_recipe_is_named(ran, tmp_path):
    with pytest.raises(SystemExit, match=r"draem has no .*gpu/draem.yaml: leave it out"):
        ran("--methods", "draem", "--recipes", "gpu")
    methods = {told.split(".yaml")[0].rpartition("/")[2] for told in ran("--recipes", "gpu")[1]}
    assert "feature" in methods and "draem" not in methods


def test_a_data_set_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no folder .*: give --root, or set MVTEC_ROOT"):
        reproduce.main(["--data", "mvtec", "--root", str(tmp_path)])


@pytest.mark.whole
def test_all_of_it_runs_at_toy_size(tmp_path, capsys):
    options = ["--data", "mvtec", "--categories", "bottle", "--methods", "d3ad"]
    assert reproduce.main(["--quick", *options, "--minutes", "1.5", "--output", str(tmp_path)]) == 0
    assert "### MVTec AD, bottle" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert 0 <= row["metrics"]["test/mean/image_auroc"] <= 1
    assert row["trained_images"] and row["flops"] and row["memory"]
