"""The report in a browser, its numbers against those counted here from predictions.json."""

import base64
import csv
import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from lightning_ad.callbacks import Evaluation, Panels, Predictions, Report
from lightning_ad.cli import run
from tests.callbacks.example import CATEGORIES, Data, Detector, trainer
from tests.reports.browser import Page, browser, needs_browser
from tests.reports.finished import ODD, write_results

pytestmark = needs_browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as page:
        page.resize(1280)
        yield page


def shown(page: Page, folder: Path) -> None:
    run(["report", str(folder)])
    page.open(folder / "report.html")


def counted(images, threshold) -> list[str]:
    """Good passed, defects found and flagged, as the page writes them."""
    flagged = [image for image in images if image["score"] > threshold]
    good, bad = ([i for i in images if i["label"] == label] for label in (0, 1))
    passed, found = len(good) - sum(i in good for i in flagged), sum(i in bad for i in flagged)
    return [
        f"{passed} of {len(good)}", f"{found} of {len(bad)}", f"{len(flagged)} of {len(images)}",
    ]  # fmt: skip


def numbers(page: Page) -> list[str]:
    return [page.text(f"#{name}") for name in ("good-passed", "defects-found", "flagged")]


def test_numbers_follow_the_threshold(page, tmp_path):
    images = write_results(tmp_path)
    shown(page, tmp_path)
    threshold = images[0]["threshold"]
    assert numbers(page) == counted(images, threshold)
    page.put("#slider", 700, "input")
    moved = float(page.one("#threshold").get_property("value"))
    assert moved != threshold and numbers(page) == counted(images, moved)
    normal = np.sort(
        json.loads((tmp_path / "report.json").read_text())["categories"]["nut"]["normal_scores"]
    )
    for rate in (0.05, 0.2, 0.5):
        page.put("#rate", 100 * rate, "change")
        expected = normal[math.ceil(40 * (1 - rate)) - 1]
        assert float(page.one("#threshold").get_property("value")) == expected
        assert numbers(page) == counted(images, expected)
    page.put("#threshold", 1.25, "change")
    assert numbers(page) == counted(images, 1.25)
    page.one("#calibrated").click()
    assert numbers(page) == counted(images, threshold)
    assert page.problems() == []


def test_mistakes_and_their_interval(page, tmp_path):
    images = write_results(tmp_path)
    shown(page, tmp_path)
    page.put("#threshold", 1.2, "change")
    alarms = sorted(
        (i["score"] for i in images if i["label"] == 0 and i["score"] > 1.2), reverse=True
    )
    missed = sorted(i["score"] for i in images if i["label"] == 1 and i["score"] <= 1.2)
    for name, expected in (("false-alarms", alarms), ("missed", missed)):
        cards = [float(each.text) for each in page.all(f"#{name} .card b")]
        assert cards == pytest.approx(expected[:12], rel=1e-3) and len(expected) > 1
    low, high = beta.ppf(
        [0.025, 0.975], [len(alarms), len(alarms) + 1], [21 - len(alarms), 20 - len(alarms)]
    )
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %" in page.text("#summary")


def test_the_gallery_sorts_filters_and_shows_an_image_large(page, tmp_path):
    images = write_results(tmp_path)
    shown(page, tmp_path)
    scores = [float(each.text) for each in page.all("#gallery .card b")]
    assert scores == pytest.approx(sorted((i["score"] for i in images), reverse=True), rel=1e-3)
    page.one("#filter option:nth-child(2)").click()
    flagged = sum(image["verdict"] == "anomalous" for image in images)
    assert page.text("#gallery-count") == f"{flagged} of 40 images"
    page.put("#search", "00007", "input")
    assert len(page.all("#gallery .card")) <= 1
    page.one("#filter option:nth-child(1)").click()
    page.one("#gallery .card").click()
    image = next(image for image in images if image["path"].endswith("00007.png"))
    assert page.text("#large h3") == "nut/00007.png" and f"{image['score']:.5f}"[:6] in page.text(
        "#large"
    )
    page.one("#large .close").click()


def test_names_are_text_and_nothing_comes_from_the_network(page, tmp_path):
    write_results(tmp_path)
    shown(page, tmp_path)
    names = "[...document.querySelectorAll('#gallery .name')].map((each) => each.title)"
    titles = json.loads(page.driver.execute_script(f"return JSON.stringify({names})"))
    assert {f"nut/{name}" for name in ODD} <= set(titles)
    assert page.driver.execute_script("return window.hurt") is None
    assert page.driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert page.problems() == []


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_its_text_stands_out(page, tmp_path, width, scheme):
    write_results(tmp_path)
    page.resize(width, scheme=scheme)
    shown(page, tmp_path)
    assert page.widest() <= width
    script = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    ink, paper = (
        np.array(colour.strip("rgb()").split(","), float)
        for colour in page.driver.execute_script(script)
    )
    assert (ink.mean() > paper.mean()) == (scheme == "dark")
    page.resize(1280)


def test_it_prints(page, tmp_path):
    write_results(tmp_path)
    shown(page, tmp_path)
    printed = base64.b64decode(page.driver.print_page())
    assert printed.startswith(b"%PDF") and len(printed) > 10_000
    assert page.problems() == []


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_images(page, tmp_path, count):
    write_results(tmp_path, count)
    shown(page, tmp_path)
    assert page.problems() == []
    assert (count > 0) == bool(page.all("#gallery .card"))
    if not count:
        assert "no image was scored" in page.text("#notes")


def test_ten_thousand_images_are_drawn_as_they_come_into_view(page, tmp_path):
    write_results(tmp_path, 10_000, pictures=False)
    (tmp_path / "thumbnails/nut").mkdir(parents=True)
    for number in range(5, 1105):
        (tmp_path / f"thumbnails/nut/{number:05d}.png.jpg").write_bytes(b"x")
    shown(page, tmp_path)
    assert len(page.all("#gallery .card")) < 200
    assert page.text("#gallery-count") == "10000 of 10000 images"
    assert "1,000 of 10,000" in page.text("#notes")
    assert (tmp_path / "report.html").stat().st_size < 8e6


def test_a_prediction_shows_what_needs_no_labels(page, tmp_path):
    images = write_results(tmp_path, labelled=False)
    shown(page, tmp_path)
    assert page.text("#flagged") == counted(images, images[0]["threshold"])[2]
    for missing in ("good-passed", "false-alarms", "missed", "curves", "metrics"):
        assert not page.all(f"#{missing}"), missing
    assert page.all("#flagged-images .card") and page.problems() == []


@pytest.mark.parametrize(
    ("spoil", "note"),
    [
        (lambda folder: (folder / "report.json").unlink(), "report.json is missing"),
        (lambda folder: (folder / "report.json").write_text("{"), "report.json"),
        (lambda folder: (folder / "report.json").write_text('{"format": 9}'), "of another version"),
        (lambda folder: (folder / "metrics.json").write_text("[]"), "no metrics"),
        (
            lambda folder: [f.unlink() for f in (folder / "thumbnails").rglob("*.jpg")],
            "no pictures",
        ),
    ],
)
def test_what_is_missing_is_a_line_and_the_rest_is_there(page, tmp_path, caplog, spoil, note):
    images = write_results(tmp_path)
    spoil(tmp_path)
    shown(page, tmp_path)
    assert note in page.text("#notes")
    assert numbers(page) == counted(images, images[0]["threshold"])
    assert page.all("#gallery .card") and page.problems() == []


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 7, "images": []}', "nothing"])
def test_a_damaged_run_is_an_error_of_a_line(tmp_path, content):
    with pytest.raises(SystemExit, match=r"holds no predictions\.json.*unfinished"):
        run(["report", str(tmp_path)])
    (tmp_path / "predictions.json").write_text(content)
    with pytest.raises(SystemExit, match=r"predictions\.json") as error:
        run(["report", str(tmp_path)])
    assert "\n" not in str(error.value)


def test_a_test_and_a_prediction_end_with_a_report(page, tmp_path):
    data, evaluation = Data(12, tmp_path / "data"), Evaluation()
    tester = trainer(tmp_path, evaluation, Panels(2), Report(evaluation))
    tester.test(Detector(0.5), data, verbose=False)
    page.open(tmp_path / "report.html")
    images = json.loads((tmp_path / "predictions.json").read_text())["images"]
    with (tmp_path / "scores.csv").open() as file:
        rows = [
            {**row, "score": float(row["score"]), "label": int(row["label"])}
            for row in csv.DictReader(file)
        ]
    assert numbers(page) == counted(rows, 0.5) == counted(images, 0.5)
    assert len(page.all("#gallery img")) == 2 * 12 and len(page.all("#curves path.pixel")) > 2
    assert len(page.all("#category option")) == len(CATEGORIES)
    caller = trainer(tmp_path, Predictions(), Panels(), Report())
    caller.predict(Detector(0.5), data, return_predictions=False)
    page.open(tmp_path / "predictions/report.html")
    page.one("#gallery .card").click()
    link = page.one("#large a").get_attribute("href")
    assert Path(link.removeprefix("file://")).is_file()
    assert page.problems() == []


def test_runs_on_the_same_images_are_compared(page, tmp_path):
    runs = [tmp_path / name for name in ("a", "b", "c")]
    images = [write_results(folder, seed=seed) for seed, folder in enumerate(runs)]
    file = tmp_path / "all.html"
    run(["report", *map(str, runs), "--output", str(file)])
    page.open(file)
    rows = page.all("#verdicts tbody tr")
    for row, own, folder in zip(rows, images, runs, strict=True):
        assert row.text.startswith(f"PaDiM in {folder.name} ")
        for number in counted(own, own[0]["threshold"]):
            assert number in row.text
    assert len(page.all("#disputed img")) == 3 * 40 and page.problems() == []


def test_runs_on_other_images_are_not_compared(tmp_path):
    for name, count in (("a", 40), ("b", 39)):
        write_results(tmp_path / name, count)
    with pytest.raises(SystemExit, match=r"not of the same images \(39 and 40; nut/"):
        run(["report", str(tmp_path / "a"), str(tmp_path / "b")])


def test_a_report_that_cannot_be_written_costs_nothing_else(tmp_path, caplog):
    (tmp_path / "report.html").mkdir()
    (tmp_path / "report.html/in the way").touch()
    data, evaluation = Data(4, tmp_path / "data"), Evaluation()
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path, evaluation, Panels(2), Report(evaluation)).test(
            Detector(0.5), data, verbose=False
        )
    assert "no report, as" in caplog.text and (tmp_path / "predictions.json").exists()
