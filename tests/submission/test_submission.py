"""Submissions: writing, validating every kind of fault with its row, hostile files, frames."""

from __future__ import annotations

import copy
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.errors import MedGroundError, SubmissionError
from medground_bench.dataset.folder import open_folder
from medground_bench.imaging import Letterbox
from medground_bench.submission import (
    MAX_BOXES,
    Prediction,
    SubmissionWriter,
    ValidationReport,
    open_submission,
    strict_json,
    validate_submission,
    write_submission,
)
from tests.scoring.folders import header, make_rows, perfect, write_folder, write_perfect

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return make_rows(12)


@pytest.fixture(scope="module")
def dataset(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "medground-bench", rows)


def write_lines(folder: Path, head: Any, lines: list[str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "submission.json").write_text(json.dumps(head))
    (folder / "predictions.jsonl").write_bytes(
        b"".join((s if isinstance(s, bytes) else s.encode()) + b"\n" for s in lines)
    )
    return folder


def checked(folder: Path, head: Any, predictions: list[Row], dataset: Path) -> ValidationReport:
    """The report on a submission with these rows."""
    return validate_submission(write_lines(folder, head, [json.dumps(p) for p in predictions]), dataset)


def codes(report: ValidationReport) -> list[str]:
    return [fault.code for fault in report.faults]


# --- writing and reading


def test_a_valid_submission(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = write_perfect(tmp_path / "sub", rows)
    report = validate_submission(folder, dataset, "direct")
    assert report.valid
    assert (report.rows, report.faults, report.warnings) == (12, [], [])
    assert validate_submission(folder).valid  # the form alone
    assert validate_submission(folder, dataset).valid  # config from the mode
    assert validate_submission(folder, open_folder(dataset, "direct")).valid
    submission = open_submission(folder)
    assert submission.header["method"] == "oracle"
    assert submission.predictions() == {p["id"]: Prediction.from_row(p) for p in perfect(rows)}
    assert [p.to_row()["boxes"] for p in submission] == [p["boxes"] for p in perfect(rows)]
    assert submission.digest().startswith("sha256:")


def test_all_optional_keys(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    (folder / "heatmaps").mkdir(parents=True)
    np.save(folder / "heatmaps" / "a.npy", np.eye(16, dtype=np.float32))
    predictions = perfect(rows)
    predictions[0] |= {
        "concept": "left lung",
        "concept_scores": {"left lung": 0.5, "right lung": -1},
        "tokens": [0.1, 2, 0],
        "fallback": False,
        "degenerate": True,
        "heatmap": "heatmaps/a.npy",
        "extras": {"anything": [1, None]},
        "error": None,
    }
    write_submission(folder, header(rows), predictions)
    report = validate_submission(folder, dataset)
    assert report.valid
    assert report.warnings == []
    submission = open_submission(folder)
    heatmap = submission.heatmap(next(iter(submission)))
    assert heatmap is not None
    np.testing.assert_array_equal(heatmap, np.eye(16))


def test_writing_is_whole_or_not_at_all(rows: list[Row], tmp_path: Path) -> None:
    folder = write_perfect(tmp_path / "sub", rows)
    (folder / "heatmaps").mkdir()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    with pytest.raises(SubmissionError, match="not JSON"):
        write_submission(folder, header(rows), [{"id": "a", "boxes": [[0, 0, 1, math.nan]]}])

    def interrupted(target: Path) -> None:
        with SubmissionWriter(target, header(rows)) as writer:
            writer.add({"id": "a", "boxes": []})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted(folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
    assert (folder / "heatmaps").is_dir()
    with pytest.raises(RuntimeError):
        interrupted(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    "row", [{}, {"id": "a"}, {"id": "", "boxes": []}, {"id": 3, "boxes": []}, {"id": "a", "boxes": 1}]
)
def test_the_writer_refuses_rows_without_id_or_boxes(rows: list[Row], tmp_path: Path, row: Row) -> None:
    with pytest.raises(SubmissionError, match="needs an 'id'"):
        write_submission(tmp_path / "sub", header(rows), [row])


def test_the_writer_refuses_doubles_and_headers_without_the_dataset(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="already written"):
        write_submission(tmp_path / "sub", header(rows), [{"id": "a", "boxes": []}] * 2)
    with pytest.raises(SubmissionError, match="lacks dataset_fingerprint"):
        write_submission(tmp_path / "sub", {**header(rows), "dataset_fingerprint": ""}, [])


def test_opening_what_is_not_a_submission(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"no submission\.json"):
        open_submission(tmp_path)
    with pytest.raises(SubmissionError, match="no such folder"):
        validate_submission(tmp_path / "nowhere")
    folder = write_lines(tmp_path / "sub", {**header(rows), "mode": "fast"}, [])
    with pytest.raises(SubmissionError, match="unknown mode"):
        open_submission(folder)
    folder = write_lines(tmp_path / "sub", header(rows), ['{"id": "a", "boxes": []}', '{"id": "b", "boxes": [[1]]}'])
    with pytest.raises(SubmissionError, match="four") as caught:
        list(open_submission(folder).rows())
    assert str(caught.value.where).endswith("predictions.jsonl:2")


# --- one fault of every kind, each with its place


ROW_FAULTS: dict[str, tuple[Callable[[Row], Any], str, str]] = {
    "arity 3": (lambda r: r.update(boxes=[[0, 0, 5]]), "arity", "boxes[0]"),
    "arity 5": (lambda r: r.update(boxes=[[0, 0, 5, 5], [0, 0, 5, 5, 5]]), "arity", "boxes[1]"),
    "reversed": (lambda r: r.update(boxes=[[9, 0, 5, 5]]), "reversed", "boxes[0]"),
    "no area": (lambda r: r.update(boxes=[[5, 0, 5, 5]]), "reversed", "boxes[0]"),
    "nan": (lambda r: r.update(boxes=[[0, 0, 5, math.nan]]), "not-finite", "boxes[0]"),
    "inf": (lambda r: r.update(boxes=[[0, 0, math.inf, 5]]), "not-finite", "boxes[0]"),
    "huge integer": (lambda r: r.update(boxes=[[0, 0, 10**350, 5]]), "not-finite", "boxes[0]"),
    "negative": (lambda r: r.update(boxes=[[-3, 0, 5, 5]]), "negative", "boxes[0]"),
    "outside": (lambda r: r.update(boxes=[[0, 0, 5, 99_999]]), "outside", "boxes[0]"),
    "text number": (lambda r: r.update(boxes=[[0, 0, "5", 5]]), "box-type", "boxes[0]"),
    "boolean": (lambda r: r.update(boxes=[[0, 0, True, 5]]), "box-type", "boxes[0]"),
    "null number": (lambda r: r.update(boxes=[[0, 0, None, 5]]), "box-type", "boxes[0]"),
    "box is a dict": (lambda r: r.update(boxes=[{"x1": 0}]), "box-type", "boxes[0]"),
    "flat box": (lambda r: r.update(boxes=[0, 0, 5, 5]), "box-type", "boxes"),
    "boxes is a text": (lambda r: r.update(boxes="[[0,0,5,5]]"), "boxes", "boxes"),
    "boxes is null": (lambda r: r.update(boxes=None), "boxes", "boxes"),
    "no boxes": (lambda r: r.pop("boxes"), "boxes", "boxes"),
    "too many": (lambda r: r.update(boxes=[[0, 0, 5, 5]] * (MAX_BOXES + 1)), "boxes", "boxes"),
    "concept": (lambda r: r.update(concept=3), "type", "concept"),
    "concept scores": (lambda r: r.update(concept_scores=[1]), "type", "concept_scores"),
    "concept score": (lambda r: r.update(concept_scores={"a": "x"}), "type", "concept_scores['a']"),
    "tokens": (lambda r: r.update(tokens="yes"), "type", "tokens"),
    "token": (lambda r: r.update(tokens=[0, math.nan]), "type", "tokens[1]"),
    "too many tokens": (lambda r: r.update(tokens=[0.5] * 50_001), "size", "tokens"),
    "too many concepts": (
        lambda r: r.update(concept_scores={str(k): 1 for k in range(50_001)}),
        "size",
        "concept_scores",
    ),
    "fallback": (lambda r: r.update(fallback="no"), "type", "fallback"),
    "degenerate": (lambda r: r.update(degenerate=1), "type", "degenerate"),
    "nan in extras": (lambda r: r.update(extras={"a": math.nan}), "not-finite", None),
    "heat map missing": (lambda r: r.update(heatmap="heatmaps/none.npy"), "heatmap", "heatmap"),
    "heat map outside": (lambda r: r.update(heatmap="../../etc/passwd"), "heatmap", "heatmap"),
    "heat map absolute": (lambda r: r.update(heatmap="/etc/passwd"), "heatmap", "heatmap"),
    "heat map null byte": (lambda r: r.update(heatmap="a\0b"), "heatmap", "heatmap"),
    "heat map not an array": (lambda r: r.update(heatmap="predictions.jsonl"), "heatmap", "heatmap"),
    "heat map a folder": (lambda r: r.update(heatmap="."), "heatmap", "heatmap"),
    "heat map a number": (lambda r: r.update(heatmap=5), "heatmap", "heatmap"),
}


@pytest.mark.parametrize("name", ROW_FAULTS)
def test_every_kind_of_row_fault_is_placed(name: str, rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    mutate, code, field = ROW_FAULTS[name]
    predictions = perfect(rows)
    mutate(predictions[4])
    folder = write_lines(tmp_path / "sub", header(rows), [json.dumps(p) for p in predictions])
    report = validate_submission(folder, dataset)
    (fault,) = report.faults
    assert (fault.code, fault.line, fault.id, fault.field) == (code, 5, predictions[4]["id"], field)
    assert fault.message
    assert fault.remedy
    assert str(fault).startswith(f"predictions.jsonl:5: {predictions[4]['id']}")


def test_every_faulty_row_is_listed(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    predictions = perfect(rows)
    for k, p in enumerate(predictions):
        if k % 2:
            p["boxes"] = [[0, 0, 5], [5, 5, 0, 0]]
    report = validate_submission(
        write_lines(tmp_path / "s", header(rows), [json.dumps(p) for p in predictions]), dataset
    )
    assert [(f.line, f.field) for f in report.faults] == [(k, f"boxes[{b}]") for k in range(2, 13, 2) for b in (0, 1)]
    assert report.counts() == {"arity": 6, "reversed": 6}


def test_ids(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    predictions = perfect(rows)
    missing = predictions.pop(3)["id"]
    predictions.append({"id": perfect(rows, "tiny_b")[0]["id"], "boxes": []})
    predictions.append({"id": "nothing", "boxes": []})
    predictions.append(dict(predictions[0]))
    predictions.append({"boxes": []})
    predictions.append({"id": 7, "boxes": []})
    report = validate_submission(
        write_lines(tmp_path / "s", header(rows), [json.dumps(p) for p in predictions]), dataset
    )
    found = [(f.code, f.line, f.id) for f in report.faults]
    assert found == [
        ("unknown-id", 12, predictions[11]["id"]),
        ("unknown-id", 13, "nothing"),
        ("duplicate-id", 14, predictions[0]["id"]),
        ("id", 15, None),
        ("id", 16, None),
        ("missing-id", None, missing),
    ]
    assert "belongs to tiny_b" in report.faults[0].message
    assert "line 1" in report.faults[2].message


LINES: dict[str, tuple[str | bytes, str]] = {
    "not json": ('{"id": "a", "boxes": [[1, 2,', "json"),
    "python": ("{'id': 'a'}", "json"),
    "two values": ('{"id": "a", "boxes": []} {}', "json"),
    "array": ("[1, 2]", "type"),
    "null": ("null", "type"),
    "number": ("3", "type"),
    "latin-1": (b'{"id": "caf\xe9", "boxes": []}', "encoding"),
    "utf-16": ('{"id": "a"}'.encode("utf-16"), "encoding"),
    "byte order mark": (b'\xef\xbb\xbf{"id": "a", "boxes": []}', "json"),
    "null bytes": (b"\0\0\0\0", "json"),
    "deep array": ('{"id": "a", "boxes": ' + "[" * 200_000 + "]" * 200_000 + "}", "nesting"),
    "deep object": ('{"a":' * 100_000 + "1" + "}" * 100_000, "nesting"),
    "duplicate keys": ('{"id": "a", "boxes": [], "boxes": [[1, 1, 2, 2]]}', "duplicate-key"),
    "lone surrogate": ('{"id": "\\ud800", "boxes": [[1]]}', "unknown-id"),
    "control characters": ('{"id": "\\u001b[31mred\\u0000", "boxes": []}', "unknown-id"),
    "long integer": ('{"id": "a", "boxes": [[0, 0, ' + "9" * 1_000_000 + ", 1]]}", "not-finite"),
    "long float": ('{"id": "a", "boxes": [[0, 0, 1e999999, 1]]}', "not-finite"),
    "long fraction": ('{"id": "a", "boxes": [[0, 0, -0.' + "9" * 100_000 + ", 1]]}", "reversed"),
}


@pytest.mark.parametrize("name", LINES)
def test_hostile_lines(name: str, rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    line, code = LINES[name]
    lines: list[str | bytes] = [json.dumps(p) for p in perfect(rows)]
    lines.insert(6, line)
    report = validate_submission(write_lines(tmp_path / "sub", header(rows), lines), dataset)
    assert code in codes(report)
    assert {f.line for f in report.faults} == {7}
    text = "\n".join(map(str, report.faults))
    text.encode()  # no lone surrogates
    assert "\x1b" not in text
    assert len(text) < 5000
    json.dumps(report.to_json(), allow_nan=False).encode()


def test_a_line_without_end_is_skipped_in_chunks(
    rows: list[Row], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medground_bench.submission import validate

    monkeypatch.setattr(validate, "read_lines", lambda file: strict_json.read_lines(file, 5000))
    lines: list[str | bytes] = [json.dumps(p) for p in perfect(rows)]
    lines.insert(2, '{"id": "' + "x" * 300_000)
    report = validate_submission(write_lines(tmp_path / "sub", header(rows), lines), dataset)
    (fault,) = report.faults
    assert (fault.code, fault.line) == ("long-line", 3)
    lines.append("y" * 70_000)  # the last one, without newline
    folder = write_lines(tmp_path / "sub", header(rows), lines)
    path = folder / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert [f.line for f in validate_submission(folder, dataset).faults] == [3, 14]


def test_many_faults_of_one_row_are_bounded(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    predictions = perfect(rows)
    predictions[0]["boxes"] = [[1]] * 900
    report = validate_submission(
        write_lines(tmp_path / "s", header(rows), [json.dumps(p) for p in predictions]), dataset
    )
    assert len(report.faults) == 26
    assert report.faults[-1].code == "more"


HEADERS: dict[str, tuple[Callable[[Row], Any], str, str | None]] = {
    "no method": (lambda h: h.pop("method"), "header", "method"),
    "method a number": (lambda h: h.update(method=3), "header", "method"),
    "blank lvlm": (lambda h: h.update(lvlm=" "), "header", "lvlm"),
    "unknown mode": (lambda h: h.update(mode="fast"), "header", "mode"),
    "other lvlm": (lambda h: h.update(lvlm="gpt"), "lvlm", "lvlm"),
    "other mode": (lambda h: h.update(mode="reason"), "lvlm", "lvlm"),
    "other dataset": (lambda h: h.update(dataset_fingerprint="sha256:0"), "fingerprint", "dataset_fingerprint"),
    "settings a list": (lambda h: h.update(settings=[1]), "header", "settings"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_header_faults(name: str, rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    mutate, code, field = HEADERS[name]
    head = header(rows)
    mutate(head)
    folder = write_lines(tmp_path / "sub", head, [json.dumps(p) for p in perfect(rows)])
    report = validate_submission(folder, dataset, "direct")
    assert (code, "submission.json", field) in [(f.code, f.file, f.field) for f in report.faults]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "json"),
        (b"[]", "type"),
        (b"{", "json"),
        (b"\xff", "encoding"),
        (b"[" * 100_000, "nesting"),
        (b'{"method": "a", "method": "b"}', "duplicate-key"),
    ],
)
def test_broken_header_files(content: bytes, code: str, rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = write_perfect(tmp_path / "sub", rows)
    (folder / "submission.json").write_bytes(content)
    report = validate_submission(folder, dataset)
    assert (code, "submission.json") in [(f.code, f.file) for f in report.faults]


def test_files_that_are_not_files(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    assert codes(validate_submission(folder, dataset)) == ["file", "file"]
    write_perfect(folder, rows)
    os.remove(folder / "predictions.jsonl")
    os.mkfifo(folder / "predictions.jsonl")  # reading it would never end
    os.mkfifo(folder / "pipe.npy")
    assert codes(validate_submission(folder, dataset)) == ["file"]
    os.remove(folder / "predictions.jsonl")
    write_lines(folder, header(rows), [json.dumps({**p, "heatmap": "pipe.npy"}) for p in perfect(rows)])
    assert codes(validate_submission(folder, dataset)) == ["heatmap"] * 12
    (folder / "predictions.jsonl").write_bytes(b"")
    assert codes(validate_submission(folder, dataset)) == ["missing-id"] * 12
    assert codes(validate_submission(folder)) == ["empty"]


def _archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros((2, 2)))
    return stream.getvalue()


HEATMAPS: dict[str, Callable[[Path], Any]] = {
    "pickle": lambda p: np.save(p, np.array([{"a": 1}], dtype=object), allow_pickle=True),
    "one axis": lambda p: np.save(p, np.zeros(5)),
    "three axes": lambda p: np.save(p, np.zeros((2, 2, 2))),
    "empty": lambda p: np.save(p, np.zeros((0, 5))),
    "texts": lambda p: np.save(p, np.array([["a"]])),
    "complex": lambda p: np.save(p, np.zeros((2, 2), complex)),
    "archive": lambda p: p.write_bytes(_archive()),
    "cut off": lambda p: (np.save(p, np.zeros((50, 50))), os.truncate(p, 1000)),
    "no header": lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\xff\xff"),
    "code in header": lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').system('true') \n"),
    "text": lambda p: p.write_text("hello"),
    "nothing": lambda p: p.write_bytes(b""),
}


@pytest.mark.parametrize("name", HEATMAPS)
def test_hostile_heatmaps(name: str, rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    HEATMAPS[name](folder / "a.npy")
    predictions = perfect(rows)
    predictions[2]["heatmap"] = "a.npy"
    write_submission(folder, header(rows), predictions)
    (fault,) = validate_submission(folder, dataset).faults
    assert (fault.code, fault.line, fault.field) == ("heatmap", 3, "heatmap")


def test_a_link_out_of_the_folder_is_refused(rows: list[Row], tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.eye(3))
    folder = tmp_path / "sub"
    folder.mkdir()
    (folder / "a.npy").symlink_to(tmp_path / "secret.npy")
    write_submission(folder, header(rows), [{"id": "a", "boxes": [], "heatmap": "a.npy"}])
    assert codes(validate_submission(folder)) == ["heatmap"]
    submission = open_submission(folder)
    with pytest.raises(MedGroundError, match="leaves its folder"):
        submission.heatmap(Prediction("a", (), heatmap="a.npy"))


# --- frames


def in_frame(rows: list[Row], convert: Callable[[Row], list[list[float]]]) -> list[Row]:
    return [{"id": row["id"], "boxes": convert(row)} for row in rows if row["model"] == "tiny_a"]


def frame_224(row: Row) -> list[list[float]]:
    return [list(b) for b in Letterbox.fit(row["width"], row["height"]).to_frame(row["boxes"])]


def scaled(scale: float) -> Callable[[Row], list[list[float]]]:
    def convert(row: Row) -> list[list[float]]:
        w, h = row["width"] / scale, row["height"] / scale
        return [[x1 / w, y1 / h, x2 / w, y2 / h] for x1, y1, x2, y2 in row["boxes"]]

    return convert


def swapped(row: Row) -> list[list[float]]:
    return [[y1, x1, y2, x2] for x1, y1, x2, y2 in row["boxes"]]


@pytest.mark.parametrize(
    ("convert", "code"), [(frame_224, "frame"), (scaled(1), "fractions"), (scaled(1000), "thousandths")]
)
def test_boxes_left_in_a_frame_are_noticed(
    convert: Callable, code: str, rows: list[Row], tmp_path: Path, dataset: Path
) -> None:
    big = make_rows(12, size=(2544, 3056))
    data = write_folder(tmp_path / "data", big)
    folder = write_submission(tmp_path / "sub", header(big), in_frame(big, convert))
    report = validate_submission(folder, data)
    assert report.valid
    (warning,) = report.warnings
    assert warning.code == code
    assert "1.000 if read so" in warning.message
    assert warning.remedy


def test_boxes_in_a_thousand_scale_on_images_of_1024(tmp_path: Path) -> None:
    square = make_rows(40, size=(1024, 1024), seed=3)
    square[0]["boxes"] = square[1]["boxes"] = [[900.0, 900.0, 1020.0, 1020.0]]
    data = write_folder(tmp_path / "data", square)
    folder = write_submission(tmp_path / "sub", header(square), in_frame(square, scaled(1000)))
    assert [w.code for w in validate_submission(folder, data).warnings] == ["thousandths"]
    assert validate_submission(write_perfect(tmp_path / "good", square), data).warnings == []


def test_exchanged_axes_are_noticed(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "sub", header(rows), in_frame(rows, swapped))
    report = validate_submission(folder, dataset)
    assert not report.valid
    assert set(codes(report)) == {"outside"}
    assert [w.code for w in report.warnings] == ["transposed"]
    # On square images nothing is out of bounds: what gives it away is the evidence.
    square = make_rows(40, size=(1024, 1024))
    data = write_folder(tmp_path / "data", square)
    folder = write_submission(tmp_path / "square", header(square), in_frame(square, swapped))
    report = validate_submission(folder, data)
    assert report.valid
    assert [w.code for w in report.warnings] == ["transposed"]


def test_honest_predictions_are_not_suspected(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = in_frame(rows, lambda row: [[0, 0, row["width"], row["height"]]])
    nothing = in_frame(rows, lambda row: [])
    noise = in_frame(
        rows, lambda row: [[0, 0, float(rng.uniform(300, row["width"])), float(rng.uniform(300, row["height"]))]]
    )
    for k, predictions in enumerate((whole, nothing, noise)):
        report = validate_submission(write_submission(tmp_path / str(k), header(rows), predictions), dataset)
        assert (report.faults, report.warnings) == ([], [])


def test_small_images_may_use_the_whole_frame(tmp_path: Path) -> None:
    small = make_rows(12, size=(224, 200))
    data = write_folder(tmp_path / "data", small)
    assert validate_submission(write_perfect(tmp_path / "sub", small), data).warnings == []


def test_unknown_keys_and_missing_provenance_are_warnings(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    head = header(rows)
    del head["authors"]
    predictions = perfect(rows)
    predictions[5]["colour"] = "red"
    report = checked(tmp_path / "s", head, predictions, dataset)
    assert report.valid
    assert [(w.code, w.file, w.line) for w in report.warnings] == [
        ("provenance", "submission.json", None),
        ("unknown-key", "predictions.jsonl", 6),
    ]


# --- two hundred mutated submissions


def mutated_line(line: bytes, rng: np.random.Generator) -> bytes:
    """Damage the text of a line so that it cannot be a row any more."""
    kind = rng.integers(5)
    place = int(rng.integers(1, len(line) - 1))
    if kind == 0:
        return line[:place]
    if kind == 1:
        return line[:place] + bytes([int(rng.integers(0x80, 0x100))]) + line[place:]
    if kind == 2:
        return line.replace(b":", b"=", 1)
    if kind == 3:
        return line + line
    return bytes(rng.integers(33, 127, 80).astype(np.uint8))


def mutated_row(row: Row, rng: np.random.Generator) -> Row:
    """One fault in the row's values."""
    row = copy.deepcopy(row)
    names = sorted(ROW_FAULTS)
    ROW_FAULTS[names[int(rng.integers(len(names)))]][0](row)
    return row


@pytest.mark.parametrize("seed", range(200))
def test_malformed_submissions(seed: int, rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    """Rows chosen at random are damaged at random: each is reported by its line, and no other is."""
    rng = np.random.default_rng(seed)
    predictions = perfect(rows)
    chosen = sorted(rng.choice(len(predictions), int(rng.integers(1, 5)), replace=False).tolist())
    lines: list[str | bytes] = [json.dumps(p) for p in predictions]
    lost = []
    for k in chosen:
        if rng.random() < 0.5:
            lines[k] = json.dumps(mutated_row(predictions[k], rng))
        else:
            lines[k] = mutated_line(str(lines[k]).encode(), rng).replace(b"\n", b" ")
            lost.append(predictions[k]["id"])
    report = validate_submission(write_lines(tmp_path / "sub", header(rows), lines), dataset)
    assert not report.valid
    assert {f.line for f in report.faults if f.line is not None} == {k + 1 for k in chosen}
    assert {f.id for f in report.faults if f.code == "missing-id"} == set(lost)
    assert all(f.message and f.remedy for f in report.faults)
    json.dumps(report.to_json(), allow_nan=False)
