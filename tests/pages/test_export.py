"""Tables and figures by the name of the file."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from medground_bench.core.errors import MedGroundError
from medground_bench.pages.export import FORMATS, Table, check_format, rows_table, write_rows, write_table
from medground_bench.scoring.aggregate import Aggregate
from medground_bench.scoring.rows import Row
from medground_bench.scoring.statistics import Interval

NAME = "grad_cam|50%"


def row(kind: str, name: str, iou: float, *, low: float = math.nan, high: float = math.nan, clusters: int = 30) -> Row:
    numbers = {m: Interval(iou, low, high) for m in ("iou", "precision", "recall", "f1")}
    aggregate = Aggregate(level="all", group="", records=40, clusters=clusters, values=numbers)
    span = (0.1, 0.9) if kind == "method" else None
    return Row(kind, name, "direct", ("toy_qwen",), aggregate, None, span)


@pytest.fixture
def rows() -> list[Row]:
    return [
        row("chance", "centre_prior", 0.1),
        row("method", "worse", 0.2),
        row("method", NAME, 0.5, low=0.4, high=0.6),
    ]


def test_the_best_stands_first_and_every_number_is_there(rows: list[Row]) -> None:
    table = rows_table(rows)
    assert [cells[2] for cells in table.rows] == [NAME, "worse", "chance: centre prior"]
    best = dict(zip(table.columns, table.rows[0], strict=True))
    assert best["IoU"] == "0.500 [0.400, 0.600]"
    assert (best["n"], best["patients"], best["reach"]) == ("40", "30", "0.50")


def test_values_go_into_csv_and_json(rows: list[Row], tmp_path: Path) -> None:
    with open(write_rows(tmp_path / "t.csv", rows), newline="") as file:
        read = list(csv.DictReader(file))
    assert [(r["name"], float(r["iou"])) for r in read] == [(NAME, 0.5), ("worse", 0.2), ("centre_prior", 0.1)]
    data = json.loads(write_rows(tmp_path / "t.json", rows, settings={"seed": 1}).read_text())
    assert data["settings"] == {"seed": 1}
    assert data["rows"][0]["iou_high"] == 0.6
    assert data["rows"][1]["iou_high"] is None


def test_markdown_and_latex_escape_what_they_would_obey(rows: list[Row], tmp_path: Path) -> None:
    text = write_rows(tmp_path / "t.md", rows, title="T").read_text()
    assert r"grad\_cam\|50%" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace(r"\|", "").count("|") for line in table} == {len(rows_table(rows).columns) + 1}
    text = write_rows(tmp_path / "t.tex", rows, title="A\n\\input{x}").read_text()
    assert r"grad\_cam|50\%" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert not any("input" in line for line in body), "a title stays in its comment"
    assert {line.replace(r"\&", "").count(" & ") for line in body if line.endswith(r"\\")} == {12}


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_figures(rows: list[Row], tmp_path: Path, ending: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = write_rows(tmp_path / f"f{ending}", [*rows, row("method", "a $formula_", 0.3)], title="100 $ _")
    assert path.read_bytes().startswith(start)
    assert path.stat().st_size > 3000


def test_what_cannot_be_written_is_refused_beforehand(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match="no format") as caught:
        check_format(tmp_path / "t.cvs")
    assert "did you mean '.csv'" in str(caught.value)
    with pytest.raises(MedGroundError, match="no format"):
        write_rows(tmp_path / "t", rows)
    with pytest.raises(MedGroundError, match="no figure"):
        write_table(tmp_path / "t.png", Table("", ("a",), (("1",),)))
    assert list(tmp_path.iterdir()) == []
    assert set(FORMATS) >= {".csv", ".json", ".md", ".tex", ".png", ".svg", ".pdf"}


def test_no_rows(tmp_path: Path) -> None:
    for ending in (".csv", ".json", ".md", ".tex", ".svg"):
        assert write_rows(tmp_path / f"t{ending}", []).is_file()
