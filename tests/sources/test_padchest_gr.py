from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from medground_bench.core.errors import SourceError
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
