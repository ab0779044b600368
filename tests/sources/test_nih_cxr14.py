from __future__ import annotations

import csv
from pathlib import Path

import pytest

from medground_bench.core.errors import SourceError
from medground_bench.sources import open_source
from tests.handmade import write_nih

ROWS = [
    "00000002_001.png,Mass,10.25,5,20,30,,,",
    "00000001_000.png,Nodule,1,2,3.5,4,,,",
    "00000002_001.png,Atelectasis,0,0,5,5",  # the shared copy has no trailing commas
    "00000002_001.png,Mass,1,1,2,2,,,",
    "00000003_000.png,Mass,1,1,0,2,,,",
]


def test_enumeration(tmp_path: Path) -> None:
    table = write_nih(tmp_path, ROWS)
    source = open_source("nih_cxr14", tmp_path)
    assert [(c.index, c.image_id, c.patient_id, c.attribute, c.boxes) for c in source] == [
        (0, "00000001_000.png", "00000001", "Nodule", ((1, 2, 4.5, 6),)),
        (1, "00000002_001.png", "00000002", "Atelectasis", ((0, 0, 5, 5),)),
        (2, "00000002_001.png", "00000002", "Mass", ((10.25, 5, 30.25, 35), (1, 1, 3, 3))),
        (3, "00000003_000.png", "00000003", "Mass", ()),
    ]
    assert source[3].problems == (f"{table}:6: box [1, 1, 1, 3] is empty or reversed",)


def test_jpg_or_png_or_a_part_folder(tmp_path: Path) -> None:
    write_nih(tmp_path, ROWS, suffix=".jpg")
    part = tmp_path / "images_002" / "images"
    part.mkdir(parents=True)
    (tmp_path / "images" / "00000001_000.jpg").rename(part / "00000001_000.png")
    paths = [c.image_path for c in open_source("nih_cxr14", tmp_path)]
    assert all(p.is_file() for p in paths)
    assert [p.suffix for p in paths] == [".png", ".jpg", ".jpg", ".jpg"]


@pytest.mark.parametrize(
    ("change", "message", "line"),
    [
        (lambda t: "", "empty", None),
        (lambda t: t.replace("Finding Label", "Label"), "the header is", 1),
        (lambda t: t.replace("00000001_000.png,Nodule,1,2,3.5,4,,,", "00000001_000.png,Nodule,1"), "3 fields", 3),
        (lambda t: t.replace("00000001_000.png", "../../../etc/passwd"), "leaves its folder", 3),
        (lambda t: t.replace("00000001_000.png", ""), "Image Index or Finding Label is empty", 3),
        (lambda t: t[:-5], "cut off", 6),
    ],
)
def test_damage_is_a_clear_error(tmp_path: Path, change, message: str, line: int | None) -> None:
    table = write_nih(tmp_path / "a" / "b", ROWS)
    table.write_text(change(table.read_text()))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("nih_cxr14", tmp_path / "a" / "b")
    assert caught.value.where == (str(table) if line is None else f"{table}:{line}")


def test_real_copy_equals_its_csv(shared_data: Path) -> None:
    root = shared_data / "data" / "nih_cxr14"
    source = open_source("nih_cxr14", root)
    assert len({c.image_id for c in source}) == 120
    with open(root / "BBox_List_2017.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    expected = sorted((r[0], r[1], *(float(v) for v in r[2:6])) for r in rows)
    # A sum of floats is not always undone exactly by a difference: compare the sums.
    found = sorted((c.image_id, c.attribute, *box) for c in source for box in c.boxes)
    assert found == [(i, a, x, y, x + w, y + h) for i, a, x, y, w, h in expected]
