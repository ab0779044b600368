from __future__ import annotations

from pathlib import Path

import pytest

from medground_bench.core.errors import SourceError
from medground_bench.sources import open_source
from tests.handmade import write_imagenome

DISEASE, FINDING = "disease", "anatomicalfinding"

ROWS = [
    # patient 9 sorts before 10 as an integer, after it as text
    (10, 7, "bb", 1, "pneumonia", DISEASE, "[1, 2, 30, 20]"),  # line 2
    (9, 100, "zz", 1, "lung opacity", FINDING, "[5, 6, 10.5, 12]"),
    (10, 7, "bb", 1, "atelectasis", FINDING, "[3, 4, 9, 9]"),
    (10, 7, "bb", 1, "pneumonia", DISEASE, "(0, 0, 5, 5)"),
    (10, 7, "bb", 0, "effusion", FINDING, "[1, 2, 30, 20]"),  # not there
    (10, 7, "bb", 1, "ett", "tubesandlines", "[1, 2, 30, 20]"),  # not of a kept category
    (9, 20, "aa", 1, "lung opacity", FINDING, "[0, 0, 0, 0]"),  # line 8: broken, alone in its group
    (10, 7, "bb", 1, "atelectasis", FINDING, "unknown"),  # line 9: broken beside a good one
]


def test_enumeration_order_boxes_and_paths(tmp_path: Path) -> None:
    write_imagenome(tmp_path, ROWS)
    source = open_source("imagenome", tmp_path)
    found = [(c.index, c.patient_id, c.image_id, c.attribute, c.boxes) for c in source]
    assert found == [
        (0, "9", "aa", "lung opacity", ()),
        (1, "9", "zz", "lung opacity", ((5, 6, 10.5, 12),)),
        (2, "10", "bb", "atelectasis", ((3, 4, 9, 9),)),
        (3, "10", "bb", "pneumonia", ((1, 2, 30, 20), (0, 0, 5, 5))),
    ]
    assert source[3].image_path == (tmp_path / "mimic-cxr-jpg/2.1.0/files/p10/p10/s7/bb.jpg").resolve()
    assert all(c.image_path.is_file() for c in source)
    assert (source.name, source.root, source.where(3)) == (
        "imagenome",
        tmp_path,
        "gold_object_attribute_with_coordinates.txt: lines 2, 5",
    )


def test_broken_rows_keep_their_position_and_are_reported(tmp_path: Path) -> None:
    table = write_imagenome(tmp_path, ROWS)
    source = open_source("imagenome", tmp_path)
    assert source[0].problems == (f"{table}:8: box [0, 0, 0, 0] is empty or reversed",)
    assert source[2].problems == (f"{table}:9: 'unknown' is not a box of four numbers",)
    assert not source.faults


@pytest.mark.parametrize("text", ["__import__('os').system('touch pwned')", "[1,2,3]", "", "[]", "[4, 4, 2, 8]"])
def test_unparseable_boxes_are_problems_and_never_code(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_imagenome(tmp_path, [(1, 1, "a", 1, "x", DISEASE, text), (1, 1, "b", 1, "x", DISEASE, "[1,2,3,4]")])
    source = open_source("imagenome", tmp_path)
    assert source[0].boxes == ()
    assert len(source[0].problems) == 1
    assert not (tmp_path / "pwned").exists()


def test_not_finite_is_a_fault(tmp_path: Path) -> None:
    table = write_imagenome(tmp_path, [(1, 1, "a", 1, "x", DISEASE, "[nan, 2, 3, 4]")])
    source = open_source("imagenome", tmp_path)
    assert source.faults == (f"{table}:2: box [nan, 2, 3, 4] has a coordinate that is not finite",)


def test_flat_layout(tmp_path: Path) -> None:
    write_imagenome(tmp_path, ROWS)
    (tmp_path / "chest-imagenome/1.0.0/gold_dataset").rename(tmp_path / "gold_dataset")
    (tmp_path / "mimic-cxr-jpg/2.1.0/files").rename(tmp_path / "files")
    assert all(c.image_path.is_file() for c in open_source("imagenome", tmp_path))


def test_quoted_coordinates_are_read(tmp_path: Path) -> None:
    write_imagenome(tmp_path, [(1, 1, "a", 1, "x", DISEASE, '"[1, 2, 3, 4]"')])
    assert open_source("imagenome", tmp_path)[0].boxes == ((1, 2, 3, 4),)


def test_an_attribute_of_two_categories_has_two_ids(tmp_path: Path) -> None:
    write_imagenome(tmp_path, [(1, 1, "a", 1, "x", c, "[1, 2, 3, 4]") for c in (DISEASE, FINDING)])
    assert [c.id for c in open_source("imagenome", tmp_path)] == ["imagenome/a/x", "imagenome/a/x#2"]


def test_a_path_that_climbs_out_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    table = write_imagenome(root, [(1, 1, "a", 1, "x", DISEASE, "[1, 2, 3, 4]")])
    table.write_text(table.read_text().replace("a.dcm", "../../../../../../../secret.dcm"))
    with pytest.raises(SourceError, match=r"leaves its folder") as caught:
        open_source("imagenome", root)
    assert caught.value.where == f"{table}:2"


def test_an_id_that_is_no_number_is_refused_with_its_row(tmp_path: Path) -> None:
    table = write_imagenome(tmp_path, ROWS)
    table.write_text(table.read_text().replace("\n9\t100", "\np9\t100"))
    with pytest.raises(SourceError, match="patient_id is 'p9'") as caught:
        open_source("imagenome", tmp_path)
    assert caught.value.where == f"{table}:3"
