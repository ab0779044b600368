"""The dataset folder: build, load, keep, refuse; nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from medground_bench.core.errors import BuildError, ImageError, MedGroundError, RecordsError, SourceError
from medground_bench.dataset.card import COUNTS_MARK, card_template, render_card
from medground_bench.dataset.columns import COLUMNS, features, fingerprint
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.plan import BuildSettings, make_plan
from medground_bench.dataset.write import build_folder
from tests.handmade import grey, write_nih

ROWS = [
    "00000001_000.png,Mass,10,5,20,30,,,",
    "00000001_000.png,Nodule,1.5,2,3,4,,,",
    "00000002_000.png,Mass,0,0,60,40,,,",
    "00000002_001.png,Mass,1,1,0,9,,,",  # broken: no width
]


@pytest.fixture
def nih(tmp_path: Path) -> Path:
    write_nih(tmp_path / "nih", ROWS)
    return tmp_path / "nih"


def settings(nih: Path, **changes: Any) -> BuildSettings:
    return BuildSettings(**{"config": "candidates", "sources": {"nih_cxr14": str(nih)}, **changes})


def records(path: Path, *indices: int, model: str = "gemma3_4b") -> Path:
    entries = [
        {
            "model": model,
            "dataset": "nih_cxr14",
            "index": index,
            "answer": "Yes",
            "prediction_direct": "Yes.\n",
            "prediction_edited_direct": "No",
            "prediction_edited_kept_direct": "Yes",
            "prediction_edited_kept_normal_direct": "Yes",
        }
        for index in indices
    ]
    path.write_text(json.dumps(entries))
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "medground_bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, **options)


# --- what is built


def test_candidates(tmp_path: Path, nih: Path) -> None:
    folder, plan = build_folder(settings(nih), tmp_path / "medground-bench")
    assert [i.columns["id"] for i in plan.items] == [
        "nih_cxr14/00000001_000.png/Mass",
        "nih_cxr14/00000001_000.png/Nodule",
        "nih_cxr14/00000002_000.png/Mass",
    ]
    opened = open_folder(folder)
    rows = [record.to_row() for record in opened]
    assert len(opened) == len(rows) == 3
    assert rows[1] == {
        "id": "nih_cxr14/00000001_000.png/Nodule",
        "dataset": "nih_cxr14",
        "model": None,
        "mode": None,
        "image_id": "00000001_000.png",
        "patient_id": "00000001",
        "width": 60,
        "height": 40,
        "attribute": "Nodule",
        "question": "Is there evidence of Nodule in the image?",
        "answer": "Yes",
        "response": None,
        "boxes": [[1.5, 2.0, 4.5, 6.0]],
        "regions": [],
        "prediction": None,
        "prediction_edited": None,
        "prediction_edited_kept": None,
        "prediction_edited_kept_normal": None,
    }
    image = opened["nih_cxr14/00000002_000.png/Mass"].image
    assert image.mode == "L"
    assert (np.asarray(image) == np.asarray(Image.open(nih / "images" / "00000002_000.png"))).all()
    opened.verify()
    assert opened.fingerprint == fingerprint(rows)


def test_a_folder_is_a_sequence_of_records(tmp_path: Path) -> None:
    write_nih(tmp_path / "nih", [f"{i:08d}_000.png,Mass,{i},1,3,4" for i in range(1, 13)])
    # A row group per process and a file per row group: records are found across both.
    out, _ = build_folder(settings(tmp_path / "nih"), tmp_path / "out", num_proc=2, shard_bytes=1)
    opened = open_folder(out)
    records = list(opened)
    assert [opened[k] for k in range(-12, 12)] == records * 2
    assert opened[2:9:3] == records[2:9:3]
    assert opened["nih_cxr14/00000007_000.png/Mass"] == records[6] == opened[np.int64(6)]
    assert records[6] in opened
    assert "nih_cxr14/00000007_000.png/Mass" in opened
    assert "nih_cxr14/00000013_000.png/Mass" not in opened
    assert opened.index(records[11]) == 11
    for record in (opened[0], opened[11], opened[5]):
        native = np.asarray(Image.open(tmp_path / "nih" / "images" / record.image_id))
        assert (np.asarray(record.image) == native).all()
    with pytest.raises(IndexError):
        _ = opened[12]
    assert list(opened.values("image_id", "width")) == [(r.image_id, 60) for r in records]
    again = pickle.loads(pickle.dumps(opened[3]))  # noqa: S301 - to the workers of a data loader
    assert again == records[3]
    assert again.image.tobytes() == records[3].image.tobytes()


def test_a_broken_row_is_reported_and_keeps_positions(tmp_path: Path, nih: Path) -> None:
    write_nih(tmp_path / "b", ["00000000_000.png,Mass,1,1,0,9,,,", *ROWS])
    folder, plan = build_folder(settings(tmp_path / "b"), tmp_path / "out")
    assert len(plan.items) == 3
    build = json.loads((folder / "build.json").read_text())["configs"]["candidates"]
    assert [b.split(": box")[0] for b in build["broken"]] == [
        "nih_cxr14/00000000_000.png/Mass (left out): <nih_cxr14>/BBox_List_2017.csv:2",
        "nih_cxr14/00000002_001.png/Mass (left out): <nih_cxr14>/BBox_List_2017.csv:6",
    ]
    # Position 0 is the broken one: a record of position 1 is the candidate after it.
    record = records(tmp_path / "d.json", 1)
    other, _ = build_folder(
        settings(tmp_path / "b", config="direct", records=str(record), allow_other_records=True), tmp_path / "out2"
    )
    assert open_folder(other)[0].id == "gemma3_4b/direct/nih_cxr14/00000001_000.png/Mass"


def test_load_dataset_plain_and_streaming(tmp_path: Path, nih: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    build_folder(settings(nih), tmp_path / "medground-bench")
    monkeypatch.chdir(tmp_path)
    loaded = datasets.load_dataset("medground-bench", "candidates", cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["test"]
    data = loaded["test"]
    assert tuple(data.column_names) == COLUMNS
    assert data[2]["boxes"] == [[0.0, 0.0, 60.0, 40.0]]
    assert data[2]["image"].size == (60, 40)
    assert data[2]["image"].mode == "L"
    stream = datasets.load_dataset("medground-bench", "candidates", split="test", streaming=True)
    assert [r["id"] for r in stream] == data["id"][:]
    assert next(iter(stream))["image"].size == (60, 40)


def other_content_of_the_same_size(nih: Path, out: Path, size: int) -> None:
    """Rebuild with another box, chosen so that the file has as many bytes as before: what a cache key may not miss."""
    table = nih / "BBox_List_2017.csv"
    original = table.read_text()
    for x in range(11, 60):
        table.write_text(original.replace("Mass,10,5,20,30", f"Mass,{x},5,20,30"))
        build_folder(settings(nih, clip_boxes=True), out)
        if open_folder(out).files[0].stat().st_size == size:
            return
    pytest.fail("no other box gives a file of the same size")


def test_load_dataset_never_returns_what_was_there_before(
    tmp_path: Path, nih: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load(place: Path) -> Any:
        monkeypatch.chdir(place)
        return datasets.load_dataset("medground-bench", "candidates", split="test", cache_dir=str(tmp_path / "cache"))

    first, second = tmp_path / "first", tmp_path / "second"
    build_folder(settings(nih), first / "medground-bench")
    assert load(first)[0]["boxes"] == [[10, 5, 30, 35]]
    size = open_folder(first / "medground-bench").files[0].stat().st_size
    # Another folder of the same name, then the same folder built again.
    other_content_of_the_same_size(nih, second / "medground-bench", size)
    (box,) = open_folder(second / "medground-bench")[0].boxes
    assert box[0] > 10
    assert load(second)[0]["boxes"] == [list(box)]
    other_content_of_the_same_size(nih, first / "medground-bench", size)
    assert load(first)[0]["boxes"] == [list(box)]
    # What has not changed is still found in the cache.
    cached = list((tmp_path / "cache").rglob("*.arrow"))
    assert load(first)[0]["boxes"] == [list(box)]
    assert list((tmp_path / "cache").rglob("*.arrow")) == cached
    assert len(cached) == 2


def test_other_pixels_are_other_files_though_the_records_are_the_same(tmp_path: Path, nih: Path) -> None:
    one = open_folder(build_folder(settings(nih), tmp_path / "one")[0])
    again = open_folder(build_folder(settings(nih), tmp_path / "again")[0])
    Image.fromarray(grey(60, 40, seed=9)).save(nih / "images" / "00000002_000.png")
    two = open_folder(build_folder(settings(nih), tmp_path / "two")[0])
    assert one.fingerprint == two.fingerprint
    assert one.files[0].name != two.files[0].name
    assert one.files[0].name == again.files[0].name


def test_parquet_speaks_to_old_and_new_datasets(tmp_path: Path, nih: Path) -> None:
    import pyarrow.parquet as pq

    folder, _ = build_folder(settings(nih), tmp_path / "out")
    schema = pq.read_schema(open_folder(folder).files[0])
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    # "List" is unknown before datasets 4; "Sequence" is read by all.
    assert features["boxes"]["_type"] == features["boxes"]["feature"]["_type"] == "Sequence"
    assert features["boxes"]["feature"]["length"] == 4


def test_processes_and_shards_do_not_change_the_rows(tmp_path: Path) -> None:
    lines = [f"{i:08d}_000.png,Mass,{i},1,3,4" for i in range(1, 13)]
    write_nih(tmp_path / "nih", lines)
    one, _ = build_folder(settings(tmp_path / "nih"), tmp_path / "one")
    two, _ = build_folder(settings(tmp_path / "nih"), tmp_path / "two", num_proc=2, shard_bytes=1)
    a, b = open_folder(one), open_folder(two)
    assert len(b.files) == 2  # a row group each: one arrow file per process
    names = [f.name.rsplit("-", 1) for f in b.files]
    assert [start for start, _ in names] == ["test-00000-of-00002", "test-00001-of-00002"]
    assert len({end for _, end in names}) == 1
    assert list(a) == list(b)
    assert a.fingerprint == b.fingerprint
    for record in a:
        assert record.image.tobytes() == b[record.id].image.tobytes()


def test_a_second_config_keeps_the_first(tmp_path: Path, nih: Path) -> None:
    out = tmp_path / "out"
    build_folder(settings(nih), out)
    first = snapshot(out / "candidates")
    (out / "notes.txt").write_text("mine")
    record = records(tmp_path / "d.json", 0, 1, 2)
    direct = settings(nih, config="direct", records=str(record), allow_other_records=True)
    build_folder(direct, out)
    assert snapshot(out / "candidates") == first
    assert (out / "notes.txt").read_text() == "mine"
    assert len(open_folder(out, "direct")) == len(open_folder(out, "candidates")) == 3
    header = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert [c["config_name"] for c in header["configs"]] == ["candidates", "direct"]
    # Building it again replaces it.
    records(record, 1)
    build_folder(direct, out)
    assert [r.attribute for r in open_folder(out, "direct")] == ["Nodule"]
    assert snapshot(out / "candidates") == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.json", "nih", "out"]


def test_max_side_scales_image_and_boxes_together(tmp_path: Path, nih: Path) -> None:
    folder, _ = build_folder(settings(nih, max_side=25), tmp_path / "out")
    opened = open_folder(folder)
    record = opened[0]
    assert record.size == (25, 17) == record.image.size
    assert np.allclose(record.boxes, [[10 * 25 / 60, 5 * 17 / 40, 30 * 25 / 60, 35 * 17 / 40]])
    full = open_folder(build_folder(settings(nih, max_side=60), tmp_path / "full")[0])
    assert full[0].boxes == ((10, 5, 30, 35),)


def test_the_build_record(tmp_path: Path, nih: Path) -> None:
    import hashlib

    folder, _ = build_folder(settings(nih, scaling="percentile"), tmp_path / "out")
    build = json.loads((folder / "build.json").read_text())
    entry = build["configs"]["candidates"]
    assert build["format"] == 1
    assert {"medground-bench", "datasets", "pyarrow", "pillow"} <= set(build["versions"])
    assert (entry["rows"], entry["images"]) == (3, 2)
    assert entry["settings"]["scaling"] == "percentile"
    (file,) = open_folder(folder).files
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    assert entry["files"] == {f"candidates/{file.name}": {"bytes": file.stat().st_size, "sha256": checksum}}
    assert file.stem.split("-")[-1] == hashlib.sha256(checksum.encode()).hexdigest()[:16]
    files = ("BBox_List_2017.csv", "image_sizes.csv")
    sums = {name: hashlib.sha256((nih / name).read_bytes()).hexdigest() for name in files}
    assert entry["sources"]["nih_cxr14"]["annotations"] == sums
    assert str(tmp_path) not in (folder / "build.json").read_text()  # where the source lies is nobody's business
    assert str(tmp_path) not in (folder / "README.md").read_text()


def test_nothing_is_written_into_the_source(tmp_path: Path, nih: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in nih.rglob("*")}
    build_folder(settings(nih), tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in nih.rglob("*")} == before


# --- the card


def test_the_card_of_the_project_can_be_filled_in(tmp_path: Path, nih: Path) -> None:
    folder, _ = build_folder(settings(nih), tmp_path / "out")
    text = (folder / "README.md").read_text()
    assert COUNTS_MARK not in text
    assert "| (candidates) | 3 | 3 |" in text
    assert "1 problems of annotation rows" in text
    header = yaml.safe_load(text.split("---")[1])
    (file,) = open_folder(folder).files
    path = f"candidates/test-*-{file.stem.split('-')[-1]}.parquet"
    assert header["configs"] == [
        {"config_name": "candidates", "data_files": [{"split": "test", "path": path}], "default": True}
    ]
    assert header["dataset_info"][0]["splits"][0]["num_examples"] == 3
    assert COUNTS_MARK in card_template()


def test_an_open_folder_has_no_gate_and_no_credentialed_licence(tmp_path: Path, nih: Path) -> None:
    folder, _ = build_folder(settings(nih), tmp_path / "out")
    text = (folder / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert (header["license"], header["license_name"]) == ("other", "terms-of-the-sources")
    assert header["license_link"] == "https://nihcc.app.box.com/v/ChestXray-NIHCC"
    assert not [key for key in header if key.startswith("extra_gated")]
    for word in ("PhysioNet Credentialed", "Gating", "credentialed -->", "imagenome=PHYSIONET", "| `vindr_cxr`"):
        assert word not in text
    assert "| `nih_cxr14` | [NIH" in text
    record = json.loads((folder / "build.json").read_text())
    (count,) = record["configs"]["candidates"]["counts"]
    # The files of 0.1.0 have no checksum in their names.
    config = record["configs"]["candidates"]
    config["files"] = {"candidates/test-00000-of-00001.parquet": next(iter(config["files"].values()))}
    front = yaml.safe_load(render_card(record).split("---")[1])
    assert front["configs"][0]["data_files"][0]["path"] == "candidates/test-*.parquet"
    count["dataset"] = "phantom"
    front = yaml.safe_load(render_card(record).split("---")[1])
    assert front["license"] == "apache-2.0"
    assert not {"license_name", "license_link"} & set(front)
    count["dataset"] = "vindr_cxr"
    closed = render_card(record)
    front = yaml.safe_load(closed.split("---")[1])
    assert front["license_link"].startswith("https://physionet.org/")
    assert front["extra_gated_prompt"]
    assert "### Gating" in closed
    assert "| `nih_cxr14`" not in closed
    count["dataset"] = "unheard_of"  # what is unknown may not be passed on
    assert yaml.safe_load(render_card(record).split("---")[1])["extra_gated_prompt"]


def test_the_card_states_the_features_and_a_default(tmp_path: Path, nih: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    build_folder(settings(nih), tmp_path / "out")
    record = records(tmp_path / "d.json", 0)
    build_folder(settings(nih, config="direct", records=str(record), allow_other_records=True), tmp_path / "out")
    header = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert [c["config_name"] for c in header["configs"] if c.get("default")] == ["direct"]
    for info in header["dataset_info"]:
        assert datasets.Features._from_yaml_list(info["features"]) == features()
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="test", cache_dir=str(tmp_path / "cache"))
    assert loaded["model"][:] == ["gemma3_4b"]
    assert loaded.features == features()


def test_the_line_for_detection_tools(tmp_path: Path, nih: Path) -> None:
    import datasets

    folder, _ = build_folder(settings(nih), tmp_path / "out")
    text = (folder / "README.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("detection = ")]
    loaded = datasets.load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))
    names: dict[str, Any] = {"records": loaded}
    exec(line, names)
    assert names["detection"][1]["objects"] == {"bbox": [[1.5, 2, 3, 4]], "category": ["Nodule"]}


@pytest.mark.parametrize("template", ["# no front matter\n<!-- counts -->", "---\na: 1\n---\nno mark", ""])
def test_a_card_without_marks_is_refused(template: str) -> None:
    with pytest.raises(BuildError, match="cannot be filled in"):
        render_card({"configs": {}}, template)


# --- bad input


def edit_csv(old: str, new: str) -> Callable[[Path], None]:
    def change(nih: Path) -> None:
        table = nih / "BBox_List_2017.csv"
        table.write_text(table.read_text().replace(old, new))

    return change


def overwrite(name: str, data: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def change(nih: Path) -> None:
        path = nih / "images" / name
        path.write_bytes(data(path.read_bytes()))

    return change


BAD = {
    "missing column": (edit_csv("Finding Label", "Label"), SourceError, r"BBox_List_2017.csv:1"),
    "truncated row": (edit_csv("Mass,0,0,60,40,,,", "Mass,0"), SourceError, r"BBox_List_2017.csv:4"),
    "NaN": (edit_csv("0,0,60,40", "nan,0,60,40"), SourceError, r"BBox_List_2017.csv:4.*not finite"),
    "outside": (edit_csv("0,0,60,40", "0,0,62,40"), BuildError, r"line 4: box \[0, 0, 62, 40\].*image 60x40"),
    "negative": (edit_csv("0,0,60,40", "-5,0,60,40"), BuildError, r"line 4: box \[-5, 0, 55, 40\]"),
    "far outside": (edit_csv("0,0,60,40", "70,0,60,40"), BuildError, r"line 4: box"),
    "climbing": (edit_csv("00000002_000.png", "../../../secret.png"), SourceError, "leaves its folder"),
    "zero bytes": (overwrite("00000002_000.png", lambda d: b""), ImageError, r"00000002_000.png .*line 4.*empty"),
    "not an image": (overwrite("00000002_000.png", lambda d: b"x"), ImageError, r"00000002_000.png .*line 4"),
    "truncated image": (overwrite("00000002_000.png", lambda d: d[:-300]), ImageError, r"line 4"),
    "corrupt image": (
        overwrite("00000002_000.png", lambda d: d[:200] + bytes(80) + d[280:]),
        ImageError,
        r"00000002_000.png",
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("num_proc", [1, 2])
def test_bad_input_changes_nothing(tmp_path: Path, nih: Path, what: str, num_proc: int) -> None:
    import re

    change, kind, message = BAD[what]
    out = tmp_path / "out"
    build_folder(settings(nih), out)
    before = snapshot(out)
    change(nih)
    with pytest.raises(kind) as caught:
        build_folder(settings(nih), out, num_proc=num_proc)
    assert re.search(message, str(caught.value), re.DOTALL), str(caught.value)
    assert snapshot(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nih", "out"]


def test_a_pixel_of_overhang_is_cut_and_more_only_on_demand(tmp_path: Path) -> None:
    write_nih(tmp_path / "nih", ["00000001_000.png,Mass,0,0,60.75,40", "00000001_000.png,Nodule,5,5,70,40"])
    with pytest.raises(BuildError, match=r"1 box\(es\) reach outside"):
        make_plan(settings(tmp_path / "nih"))
    plan = make_plan(settings(tmp_path / "nih", clip_boxes=True))
    assert [i.columns["boxes"] for i in plan.items] == [[[0, 0, 60, 40]], [[5, 5, 60, 40]]]
    assert len(plan.clipped) == 1
    assert "line 3" in plan.clipped[0]


def test_missing_images_are_all_listed_or_left_out(tmp_path: Path, nih: Path) -> None:
    for name in ("00000001_000.png", "00000002_001.png"):
        (nih / "images" / name).unlink()
    with pytest.raises(BuildError, match=r"2 image\(s\) are missing") as caught:
        build_folder(settings(nih), tmp_path / "out")
    assert "00000001_000.png" in caught.value.message
    assert "00000002_001.png" in caught.value.message
    assert "--allow-missing" in (caught.value.remedy or "")
    assert not (tmp_path / "out").exists()
    folder, plan = build_folder(settings(nih, allow_missing=True), tmp_path / "out")
    assert len(plan.items) == 1
    missing = json.loads((folder / "build.json").read_text())["configs"]["candidates"]["missing"]
    assert [m.split(":")[0] for m in missing] == [
        "nih_cxr14/00000001_000.png/Mass",
        "nih_cxr14/00000001_000.png/Nodule",
        "nih_cxr14/00000002_001.png/Mass",
    ]
    assert "3 left out because an image or source was missing" in (folder / "README.md").read_text()


def test_a_corrupt_image_is_not_a_missing_one(nih: Path) -> None:
    (nih / "images" / "00000002_000.png").write_bytes(b"")
    with pytest.raises(ImageError, match="cannot be read"):
        make_plan(settings(nih, allow_missing=True))


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"config": "both"}, BuildError, "unknown config"),
        ({"sources": {}}, BuildError, "no source"),
        ({"config": "direct"}, BuildError, "needs records"),
        ({"records": "x.json"}, BuildError, "neither --records nor --lvlm"),
        ({"scaling": "gamma"}, BuildError, "unknown scaling"),
        ({"max_side": 0}, BuildError, "--max-side is 0"),
        ({"sources": {"mimic": "."}}, SourceError, "unknown source"),
    ],
)
def test_settings_that_cannot_be_meant(
    tmp_path: Path, nih: Path, changes: dict[str, Any], kind: type[MedGroundError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        build_folder(settings(nih, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_without_records_is_refused(tmp_path: Path, nih: Path) -> None:
    write_nih(tmp_path / "other", ROWS)
    record = records(tmp_path / "d.json", 0)
    sources = {"nih_cxr14": str(nih), "phantom": str(tmp_path / "ph")}
    from medground_bench.sources.phantom import write_source

    write_source("phantom", tmp_path / "ph", 2, size=112, findings=["cardiomegaly"])
    with pytest.raises(RecordsError, match=r"no record belongs to source\(s\) phantom"):
        make_plan(settings(nih, sources=sources, config="direct", records=str(record), allow_other_records=True))


def test_a_foreign_folder_is_not_replaced(tmp_path: Path, nih: Path) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work")
    with pytest.raises(BuildError, match="not a dataset folder"):
        build_folder(settings(nih), out)
    assert snapshot(out) == {"chapter1.tex": b"years of work"}
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="this is a file"):
        build_folder(settings(nih), tmp_path / "file")


# --- opening


def test_opening_refuses_what_is_not_whole(tmp_path: Path, nih: Path) -> None:
    with pytest.raises(BuildError, match="no such folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(BuildError, match="not a dataset folder"):
        open_folder(nih)
    out, _ = build_folder(settings(nih), tmp_path / "out")
    with pytest.raises(BuildError, match="no config 'direct'") as caught:
        open_folder(out, "direct")
    assert caught.value.expected == "one of candidates"
    opened = open_folder(out)
    with pytest.raises(BuildError, match="no row 'x'"):
        _ = opened["x"]
    parquet = next(out.glob("candidates/*.parquet"))
    data = parquet.read_bytes()
    parquet.write_bytes(data[:-1])
    with pytest.raises(BuildError, match="bytes"):
        open_folder(out)
    parquet.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(BuildError, match="checksum"):
        open_folder(out).verify()
    parquet.write_bytes(bytes(len(data)))
    with pytest.raises(BuildError, match="cannot be read"):
        list(open_folder(out))
    parquet.unlink()
    with pytest.raises(BuildError, match="missing"):
        open_folder(out)
    (out / "build.json").write_text('{"format": 9, "configs": {}}')
    with pytest.raises(BuildError, match="format 9"):
        open_folder(out)
    (out / "build.json").write_text("{")
    with pytest.raises(BuildError, match="damaged"):
        open_folder(out)


# --- the command line, crashes and full disks


def command(*arguments: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Done:
    """The console command in this process: exit code and what it printed."""
    from medground_bench.cli import main

    monkeypatch.setattr(sys, "argv", ["medground-bench", *map(str, arguments)])
    try:
        main()
        code: Any = 0
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return Done(code or 0, printed.out, printed.err)


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def test_commands(
    tmp_path: Path, nih: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = partial(command, monkeypatch=monkeypatch, capsys=capsys)
    done = run("build", "--config", "candidates", "--source", f"nih_cxr14={nih}", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "3 rows, 2 images" in done.stdout
    assert "BBox_List_2017.csv:5" in done.stderr  # the broken row is said
    verify = run("verify", "--source", f"nih_cxr14={nih}")
    assert verify.returncode == 1
    assert "broken: " in verify.stdout
    assert "BBox_List_2017.csv:5" in verify.stdout
    sources = run("sources")
    assert sources.returncode == 0
    for name in ("imagenome", "vindr_cxr", "padchest_gr", "nih_cxr14", "phantom"):
        assert name in sources.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "--config", "candidates", "--source", "nih_cxr14"), "NAME=DIR"),
        (("build", "--config", "candidates", "--source", "mimic=x"), "unknown source 'mimic'"),
        (("build", "--config", "candidates", "--source", "nih_cxr14=nowhere"), "does not exist"),
        (("verify", "--source", "nih_cxr14=a", "--source", "nih_cxr14=b"), "given twice"),
    ],
)
def test_user_errors_are_short_and_exit_with_1(
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_verify_finds_everything(tmp_path: Path) -> None:
    from medground_bench.sources.verify import verify_source

    write_nih(tmp_path / "n", [f"0000000{i}_000.png,Mass,1,1,{w},9" for i, w in enumerate((5, 0, 70, 5, 5))])
    images = tmp_path / "n" / "images"
    (images / "00000003_000.png").unlink()
    (images / "00000004_000.png").write_bytes((images / "00000004_000.png").read_bytes()[:-300])
    report = verify_source("nih_cxr14", tmp_path / "n")
    found = {title: len(problems) for title, problems in report.problems().items()}
    assert found == {"missing": 1, "unreadable": 1, "broken": 1, "outside": 1, "copy": 0, "incomplete": 0}
    assert report.facts()["images found"] == "3"
    assert not verify_source("nih_cxr14", tmp_path / "n", decode=False).unreadable  # its header is whole
    (tmp_path / "s").mkdir()
    write_nih(tmp_path / "s" / "n", ROWS[:3])
    assert verify_source("nih_cxr14", tmp_path / "s" / "n").sound


def test_verify_says_when_a_copy_is_too_short(tmp_path: Path) -> None:
    from medground_bench.sources.verify import verify_source
    from tests.handmade import write_vindr

    write_vindr(tmp_path, [("a", "Edema", 1, 2, 3, 4)])
    report = verify_source("vindr_cxr", tmp_path)
    assert "up to 2107" in (report.too_few or "")
    assert not report.sound


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit on this system")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    write_nih(tmp_path / "nih", [f"{i:08d}_000.png,Mass,1,1,9,9" for i in range(6)], size=(300, 300))
    (tmp_path / "out").mkdir()

    def limit() -> None:  # every file this process writes may have 100 kB at most
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    arguments = ("build", "--config", "candidates", "--source", f"nih_cxr14={tmp_path / 'nih'}")
    done = run(*arguments, "--out", tmp_path / "out", preexec_fn=limit)
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nih", "out"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_build_leaves_the_old_folder_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    write_nih(tmp_path / "nih", [f"{i:08d}_000.png,Mass,1,1,9,9" for i in range(40)], size=(400, 400))
    out = tmp_path / "out"
    build_folder(settings(tmp_path / "nih", max_side=8), out)
    before = snapshot(out)
    arguments = ["build", "--config", "candidates", "--source", f"nih_cxr14={tmp_path / 'nih'}", "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "medground_bench", *arguments])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        counters = list(tmp_path.glob(".out.*.part/progress"))
        if counters and counters[0].stat().st_size >= 5:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the build never began")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert snapshot(out) == before
    assert list(tmp_path.glob(".out.*.part"))
    build_folder(settings(tmp_path / "nih", max_side=16), out)
    assert sorted(os.listdir(tmp_path)) == ["nih", "out"]
    assert open_folder(out)[0].width == 16


def test_an_interrupt_leaves_no_trace(tmp_path: Path, nih: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medground_bench.dataset import encode

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encode.RowEncoder, "row", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_folder(settings(nih), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nih"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_a_build(tmp_path: Path, how: signal.Signals) -> None:
    write_nih(tmp_path / "nih", [f"{i:08d}_000.png,Mass,1,1,9,9" for i in range(60)], size=(600, 600))
    arguments = ["build", "--config", "candidates", "--source", f"nih_cxr14={tmp_path / 'nih'}"]
    arguments += ["--out", str(tmp_path / "out"), "--num-proc", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "medground_bench", *arguments], stdout=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        counters = list(tmp_path.glob(".out.*.part/progress"))
        if counters and counters[0].stat().st_size >= 3:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the build never began")
    process.send_signal(how)
    # Its workers, and the process that the library manages them with, hold standard output until they end.
    process.communicate(timeout=30)
    assert process.returncode == -how
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)  # whoever is left of its group
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a worker lives on")
    build_folder(settings(tmp_path / "nih", max_side=8), tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["nih", "out"]


@pytest.mark.heavy
@pytest.mark.parametrize("num_proc", [1, 2])
def test_ctrl_c(tmp_path: Path, num_proc: int) -> None:
    write_nih(tmp_path / "nih", [f"{i:08d}_000.png,Mass,1,1,9,9" for i in range(60)], size=(600, 600))
    arguments = ["build", "--config", "candidates", "--source", f"nih_cxr14={tmp_path / 'nih'}"]
    arguments += ["--out", str(tmp_path / "out"), "--num-proc", str(num_proc)]
    process = subprocess.Popen(
        [sys.executable, "-m", "medground_bench", *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        counters = list(tmp_path.glob(".out.*.part/progress"))
        if counters and counters[0].stat().st_size >= 3:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the build never began")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert os.listdir(tmp_path) == ["nih"]
