from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from medground_bench.core.errors import SourceError
from medground_bench.dataset.plan import BuildSettings, make_plan
from medground_bench.sources import open_source, padchest_gr
from tests.handmade import finding, write_padchest

ENTRIES = [
    {
        "StudyID": "s2",
        "ImageID": "two.png",
        "findings": [
            finding(["nodule"], [[0.1, 0.1, 0.5, 0.5]]),
            finding(["normal"], [[0.1, 0.1, 0.5, 0.5]], abnormal=False),
            {"abnormal": False, "labels": ["normal"]},
            finding(["mass", "nodule"], [[0, 0, 0.325, 0.0125 * 5]], [[0.5, 0.5, 1, 1]]),
            finding(["nodule"], [], [[0.2, 0.2, 0.4, 0.4]]),
            finding(["effusion"], []),
        ],
    },
    {"StudyID": "s1", "ImageID": "one.png", "findings": [finding(["edema"], [[0.9, 0.9, 0.1, 0.1]])]},
]


def test_enumeration_in_file_order(tmp_path: Path) -> None:
    path = write_padchest(tmp_path, ENTRIES)
    source = open_source("padchest_gr", tmp_path)
    assert [(c.index, c.id, c.boxes) for c in source] == [
        (0, "padchest_gr/two.png/nodule", ((6, 4, 30, 20),)),
        # 0.325 * 60 = 19.5 -> 20 and 0.0625 * 40 = 2.5 -> 2: half to even
        (1, "padchest_gr/two.png/mass or nodule", ((0, 0, 20, 2), (30, 20, 60, 40))),
        (2, "padchest_gr/two.png/nodule#2", ((12, 8, 24, 16),)),
        (3, "padchest_gr/one.png/edema", ()),
    ]
    assert source[3].problems == (f"{path}: entry 1, finding 0: box [0.9, 0.9, 0.1, 0.1] is empty or reversed",)
    assert source.where(1) == "filtered_studies.json: entry 0, finding 3"
    assert [c.patient_id for c in source] == ["s2", "s2", "s2", "s1"]
    assert source.join_refusal is None


def test_only_the_first_entries_of_the_filtered_list_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_padchest(tmp_path, ENTRIES)
    monkeypatch.setattr(padchest_gr, "ENTRIES", 1)
    assert len(open_source("padchest_gr", tmp_path)) == 3


def test_the_official_file_may_not_be_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(padchest_gr, "ENTRIES", 1)
    write_padchest(tmp_path, ENTRIES, name="grounded_reports_20240819.json")
    source = open_source("padchest_gr", tmp_path)
    assert len(source) == 4
    assert "not filtered" in (source.join_refusal or "")


def test_sizes_come_from_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_padchest(tmp_path, ENTRIES)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("an image was decoded"))
    assert len(open_source("padchest_gr", tmp_path)) == 4


def test_a_missing_image_is_the_images_problem(tmp_path: Path) -> None:
    write_padchest(tmp_path, ENTRIES)
    (tmp_path / "PadChest_GR" / "two.png").unlink()
    source = open_source("padchest_gr", tmp_path)
    assert [c.boxes for c in source] == [(), (), (), ()]
    assert "the image's size is unknown" in source[0].problems[0]


def test_nan_is_a_fault(tmp_path: Path) -> None:
    entry = {"StudyID": "s", "ImageID": "x.png", "findings": [finding(["mass"], [[float("nan"), 0, 1, 1]])]}
    write_padchest(tmp_path, [entry])
    assert "entry 0, finding 0" in open_source("padchest_gr", tmp_path).faults[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-20], "not complete JSON"),
        (lambda text: '{"a": 1}', "holds a dict"),
        (lambda text: text.replace('"findings"', '"findinks"'), "'findings' is None"),
        (lambda text: text.replace('"ImageID": "one.png"', '"ImageID": 7'), "'ImageID' is 7"),
        (lambda text: text.replace('["nodule"]', "[3]"), "'labels' is"),
        (lambda text: text.replace("one.png", "../../one.png"), "leaves its folder"),
        (lambda text: "[]", "no candidate"),
    ],
)
def test_damage_is_a_clear_error(tmp_path: Path, change, message: str) -> None:
    path = write_padchest(tmp_path, ENTRIES)
    path.write_text(change(json.dumps(ENTRIES)))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("padchest_gr", tmp_path)
    assert str(path) in (caught.value.where or "")


def linked(study: str, previous: str | float | None = None) -> dict[str, Any]:
    found = [finding(["nodule"], [[0.1, 0.1, 0.5, 0.5]])]
    return {"StudyID": study, "ImageID": f"{study}.png", "PreviousStudyID": previous, "findings": found}


def test_linked_studies_are_of_one_patient(tmp_path: Path) -> None:
    """Also in any order, through a study that has no entry, and beyond the entries that are used."""
    entries = [
        linked("a3", "a2"),
        linked("b", None),
        linked("a1"),
        linked("a2", "a1"),
        linked("c1", "lost"),
        linked("c2", "lost"),
        linked("d", float("nan")),
    ]
    write_padchest(tmp_path, entries)
    source = open_source("padchest_gr", tmp_path)
    patient = {c.image_id.removesuffix(".png"): c.patient_id for c in source}
    groups = {frozenset(s for s in patient if patient[s] == p) for p in patient.values()}
    assert groups == {frozenset(g) for g in (("a1", "a2", "a3"), ("b",), ("c1", "c2"), ("d",))}
    (note,) = make_plan(BuildSettings("candidates", {"padchest_gr": str(tmp_path)})).notes  # onto the card
    assert note == source.notes[0]
    assert "4 patients of 8 studies" in note
    assert "PreviousStudyID" in note


def test_a_patient_table_is_believed_before_the_links(tmp_path: Path) -> None:
    write_padchest(tmp_path, [linked("a1"), linked("a2", "a1"), linked("b"), linked("c"), linked("d", "b")])
    table = tmp_path / "patients.csv"
    table.write_text("StudyID,PatientID,Age\na1,P1,50\na2,P2,51\nb,P1,52\n")
    source = open_source("padchest_gr", tmp_path)
    assert [c.patient_id for c in source] == ["P1", "P2", "P1", "c", "P1"]
    assert source.files[1] == table
    assert "3 patients of 5 studies, from patients.csv; of 2 studies not in it" in source.notes[0]


@pytest.mark.parametrize(
    ("content", "what", "line"),
    [
        ("StudyID,Patient\na,1\n", "missing column", 1),
        ("StudyID,PatientID\na,1\na,2\n", "of patient 2 here and of 1", 3),
        ("StudyID,PatientID\na,\n", "empty", 2),
    ],
)
def test_a_faulty_patient_table_is_refused(content: str, what: str, line: int, tmp_path: Path) -> None:
    write_padchest(tmp_path, [linked("a")])
    (tmp_path / "patients.csv").write_text(content)
    with pytest.raises(SourceError, match=what) as caught:
        open_source("padchest_gr", tmp_path)
    assert caught.value.where == f"{tmp_path / 'patients.csv'}:{line}"
