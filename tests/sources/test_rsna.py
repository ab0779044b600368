from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.errors import SourceError
from medground_bench.sources import open_source
from medground_bench.sources.verify import verify_source
from tests.handmade import write_dicom

ROWS = ["b,1,2,3,4,1", "a,,,,,0", "b,10.5,20,30,40,1", "c,0,0,5,5,1"]


def write(root: Path, rows: list[str] = ROWS, names: Any = None, **tags: Any) -> Path:
    (root / "stage_2_train_images").mkdir(parents=True)
    table = root / "stage_2_train_labels.csv"
    table.write_text("\n".join(["patientId,x,y,width,height,Target", *rows]) + "\n")
    for image in {row.split(",")[0] for row in rows} - {""}:
        write_dicom(root / "stage_2_train_images" / f"{image}.dcm", np.full((1024, 1024), 9, np.uint8), **tags)
    if names is not None:
        (root / "nih_names.json").write_text(json.dumps(names))
    return table


def test_enumeration(tmp_path: Path) -> None:
    write(tmp_path, PatientSex="F", PatientAge="058Y", ViewPosition="AP")
    source = open_source("rsna", tmp_path)
    assert [(c.index, c.image_id, c.patient_id, c.attribute, c.boxes) for c in source] == [
        (0, "b", "b", "pneumonia", ((1, 2, 4, 6), (10.5, 20, 40.5, 60))),
        (1, "c", "c", "pneumonia", ((0, 0, 5, 5),)),
    ]
    assert [(c.sex, c.age, c.view, c.size) for c in source] == [("F", 58, "AP", (1024, 1024))] * 2
    assert source.where(0) == "stage_2_train_labels.csv: lines 2, 4"
    assert verify_source("rsna", tmp_path).sound


def test_the_mapping(tmp_path: Path) -> None:
    write(tmp_path, names={"b": "00004808_090", "a": "00028640_003", "z": "00000001_000"})
    source = open_source("rsna", tmp_path)
    assert [(c.image_id, c.patient_id) for c in source] == [("00004808_090.png", "00004808"), ("c", "c")]
    assert source.reports == (f"{tmp_path / 'nih_names.json'}: 'z' is no image of this source",)


def test_rows_are_reported(tmp_path: Path) -> None:
    rows = ["a,,,,,1", "b,1,2,3,4,1", "b,1,2,3,4,1", "c,1,2,3,4,0", "d,,,,,2", "b,,,,,0", "b,,,,,0", "e,1,x,3,4,1"]
    table = write(tmp_path, rows)
    assert [(c.image_id, len(c.boxes)) for c in open_source("rsna", tmp_path)] == [("a", 0), ("b", 1), ("e", 0)]
    assert verify_source("rsna", tmp_path).broken == [
        f"{table}:4: this row is there twice, first at 3; it is counted once",
        f"{table}:5: Target of 'c' is 0 and there is a box; left out",
        f"{table}:6: Target of 'd' is '2' instead of 0 or 1; left out",
        f"{table}:7: Target of 'b' is 0, at 3 it is 1",
        f"{table}:8: Target of 'b' is 0, at 3 it is 1",
        f"{table}:8: this row is there twice, first at 7",
        f"{table}:2: Target is 1 and there is no box",
        f"{table}:9: 'x' is not a number",
    ]


@pytest.mark.parametrize(
    ("change", "message", "line"),
    [
        (lambda t: t.replace("Target", "target"), r"missing column\(s\): Target", 1),
        (lambda t: t.replace("b,1,", ",1,"), "patientId is empty", 2),
        (lambda t: t.replace("b,1,", "../x,1,"), "leaves its folder", 2),
        (lambda t: t.replace("b,1,", '"b,1,'), "quote", 2),
        (lambda t: t.replace("5,5,1\n", "5,"), "5 fields", 5),
    ],
)
def test_damage_is_a_clear_error(tmp_path: Path, change: Any, message: str, line: int) -> None:
    table = write(tmp_path)
    table.write_text(change(table.read_text()))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("rsna", tmp_path)
    assert caught.value.where == f"{table}:{line}"


def test_an_annotated_image_without_its_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "stage_2_train_images" / "c.dcm").unlink()
    (missing,) = verify_source("rsna", tmp_path).missing
    assert missing.endswith("c.dcm (stage_2_train_labels.csv: line 5)")


def test_real_copy_equals_its_csv(shared_data: Path) -> None:
    root = shared_data / "data" / "rsna"
    names = json.loads((root / "nih_names.json").read_text())
    with open(root / "stage_2_train_labels.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Target"] == "1"]
    assert len(rows) == 187
    expected = []
    for row in rows:
        x, y, w, h = (float(row[k]) for k in ("x", "y", "width", "height"))
        expected.append((f"{names[row['patientId']]}.png", x, y, x + w, y + h))
    source = open_source("rsna", root)
    assert sorted((c.image_id, *box) for c in source for box in c.boxes) == sorted(expected)
    assert not source.problems
    assert len({c.patient_id for c in source}) <= len(source)
