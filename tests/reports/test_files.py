"""Tables that a spreadsheet opens without running anything."""

import csv
from pathlib import Path

import pytest

from lightning_ad.reports.files import write_csv
from lightning_ad.reports.summary_tables import Table, Value, as_csv


@pytest.mark.parametrize("text", ["=cmd|'/C calc'!A0", "@SUM(1)", "+1+1", "-2-3", "\t=1"])
def test_no_cell_is_a_formula(tmp_path: Path, text: str) -> None:
    write_csv(tmp_path / "a.csv", ["path", "score"], [[text, -0.5], ["a=b.png", "-1.5"]])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "score"], [f"'{text}", "-0.5"], ["a=b.png", "-1.5"],
        ]  # fmt: skip
    table = Table("", ["category"], {"AUROC": "image_auroc"}, [([text], [Value(0.5, 0.1)])])
    assert list(csv.reader(as_csv([table], []).splitlines()))[1][0] == f"'{text}"
