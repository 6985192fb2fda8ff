"""What a test or a prediction leaves behind is the same from one process and from two."""

import json
import re

import pytest

from lightning_ad.callbacks import Evaluation, Panels, Predictions, Throughput
from tests.callbacks.example import Data, Detector, trainer

pytestmark = pytest.mark.whole

TWO = {"devices": 2, "strategy": "ddp_spawn"}


def files_of(folder):
    """All files by name; of the metrics, all but how long they took."""
    found = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }
    if "metrics.json" in found:
        found["metrics.json"] = {
            key: value
            for key, value in json.loads(found["metrics.json"]).items()
            if key not in ("test/images_per_second", "test/milliseconds_per_image")
        }
    seconds = re.compile(rb'"seconds": [^,]+|[^,\n]+$', re.MULTILINE)  # also a table's last column
    for name in ("predictions.json", "predictions/predictions.json", "predictions/predictions.csv"):
        if name in found:
            found[name] = seconds.sub(b"", found[name])
    return found


@pytest.mark.filterwarnings("ignore:undefined")
@pytest.mark.parametrize("count", [17, 1])  # with one image the second process has none
def test_a_test(tmp_path, count):
    data = Data(count, tmp_path / "data")
    for folder, options in (("alone", {}), ("together", TWO)):
        callbacks = Throughput(), Evaluation(), Panels(4)
        tester = trainer(tmp_path / folder, *callbacks, **options)
        tester.test(Detector(), data, verbose=False)
    alone, together = files_of(tmp_path / "alone"), files_of(tmp_path / "together")
    assert alone == together
    assert {"metrics.json", "metrics.csv", "scores.csv"} < alone.keys()


def test_a_prediction(tmp_path):
    data = Data(5, tmp_path / "data")
    for folder, options in (("alone", {}), ("together", TWO)):
        caller = trainer(tmp_path / folder, Predictions(), Panels(), **options)
        caller.predict(Detector(0.6), data, return_predictions=False)
    alone, together = files_of(tmp_path / "alone"), files_of(tmp_path / "together")
    assert alone == together
    assert len(alone) == 4 + 3 * 5  # tables, and each image's panel, thumbnail and mask
