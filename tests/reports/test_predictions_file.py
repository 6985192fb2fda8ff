"""What is written about images, read back by others' rules."""

import csv
import json

import numpy as np

from lightning_ad.maths.regions import mask_of, regions_above
from lightning_ad.reports.predictions_file import Findings, Ledger, write_findings

SIZE = (30, 70)
COLUMNS = ("path", "score", "anomalous", "regions", "seconds")


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(SIZE, np.float32)


def said(path: str, score: float, verdict: str | None) -> dict:
    known = {"path": path, "category": "bottle", "kind": None, "label": None, "size": [*SIZE]}
    return {**known, "score": score, "threshold": 0.5, "verdict": verdict, "seconds": 0.25}


def write(folder):
    """Three images, found by two processes in no order."""
    regions = {name: regions_above(noise(seed), 0.9) for seed, name in enumerate("abc")}
    ledgers = [Ledger(folder / f"{number}.jsonl") for number in range(2)]
    first, second = ledgers
    first.add("data/c.png", said("c.png", 0.75, "anomalous"), regions["c"])
    second.add("data/a.png", said("a.png", 0.25, "normal"), [])
    first.add("data/b\udcff.png", said("b\udcff.png", 0.125, None), regions["b"])
    about = {"method": "M", "fingerprint": None}
    files = [ledger.file for ledger in ledgers]
    counts = write_findings(folder, files, about, folder / "table.csv", COLUMNS)
    assert counts == {("bottle", verdict): 1 for verdict in ("normal", "anomalous", None)}
    return regions


def test_all_processes_images_come_in_order_with_their_regions(tmp_path):
    regions = write(tmp_path)
    whole = json.loads((tmp_path / "predictions.json").read_text())
    assert whole["format"] == 1 and whole["method"] == "M" and whole["fingerprint"] is None
    assert [image["path"] for image in whole["images"]] == ["a.png", "b\udcff.png", "c.png"]
    expected, found = regions["c"][0], whole["images"][2]["regions"][0]
    assert found["box"] == list(expected.box) and found["area"] == expected.area
    assert found["peak"] == {"at": list(expected.peak_at), "value": expected.peak_value}
    assert len(whole["images"][1]["regions"]) == len(regions["b"]) > 10


def test_tables_agree_with_it(tmp_path):
    regions = write(tmp_path)
    with (tmp_path / "table.csv").open(errors="surrogateescape", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["data/a.png", "data/b\udcff.png", "data/c.png"]
    assert [row["anomalous"] for row in rows] == ["0", "", "1"]
    assert rows[2]["regions"] == str(len(regions["c"])) and rows[0]["seconds"] == "0.25"
    with (tmp_path / "regions.csv").open(errors="surrogateescape", encoding="utf-8") as file:
        boxes = [row for row in csv.DictReader(file) if row["path"] == "data/c.png"]
    assert [int(row["width"]) for row in boxes] == [region.box[2] for region in regions["c"]]


def test_coco_holds_every_pixel_of_every_region(tmp_path):
    regions = write(tmp_path)
    coco = json.loads((tmp_path / "regions.coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    assert len(coco["annotations"]) == len(regions["b"]) + len(regions["c"])
    assert len({annotation["id"] for annotation in coco["annotations"]}) == len(coco["annotations"])
    masks = {name: np.zeros(SIZE, np.uint8) for name in names.values()}
    for annotation in coco["annotations"]:
        mask = decoded(annotation["segmentation"])
        assert mask.sum() == annotation["area"]
        masks[names[annotation["image_id"]]] += mask
    for name, key in (("b\udcff.png", "b"), ("c.png", "c")):
        np.testing.assert_array_equal(255 * masks[name], mask_of(regions[key], SIZE))


def decoded(segmentation: dict) -> np.ndarray:
    """COCO's run lengths as a mask (H, W), by the format's own description."""
    values = [number % 2 for number in range(len(segmentation["counts"]))]
    flat = np.repeat(values, segmentation["counts"]).astype(np.uint8)
    return flat.reshape(segmentation["size"], order="F")


def test_a_ledger_goes_on_behind_its_last_whole_line(tmp_path):
    file = tmp_path / "ledger.jsonl"
    Ledger(file).add("a.png", said("a.png", 0.5, "normal"), [])
    with file.open("a") as ledger:
        ledger.write('{"file": "b.p')  # the process was killed
    assert Findings([file]).files == {"a.png"}
    Ledger(file).add("c.png", said("c.png", 0.5, "normal"), [])
    assert Findings([file]).files == {"a.png", "c.png"}
