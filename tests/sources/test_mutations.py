"""Annotation files damaged in every way: each is read, or refused with a SourceError; never another exception.

The mutations know the structure: cells of tables and values of JSON documents are replaced by what breaks readers
(numbers of 400 digits, names no file can have, half surrogate pairs, 5 for a list, nesting of 100,000), rows and fields
are dropped, doubled and swapped, and the text itself is cut and flipped.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.errors import SourceError
from medground_bench.sources import open_source
from medground_bench.sources.phantom import LAYOUTS, write_source
from medground_bench.sources.verify import verify_source
from tests.sources.test_chestx_det import write as write_chestx_det
from tests.sources.test_rsna import write as write_rsna

SEEDS = 300
DIGITS = 400

FILES = {
    "imagenome": ["chest-imagenome/1.0.0/gold_dataset/gold_object_attribute_with_coordinates.txt"],
    "vindr_cxr": ["vindr-cxr/1.0.0/annotations/annotations_test.csv"],
    "padchest_gr": ["filtered_studies.json", "patients.csv"],
    "nih_cxr14": ["BBox_List_2017.csv", "image_sizes.csv", "Data_Entry_2017_v2020.csv"],
    "chestx_det": ["ChestX_Det_train.json", "ChestX_Det_test.json", "nih_names.json"],
    "rsna": ["stage_2_train_labels.csv", "nih_names.json"],
    "phantom": ["phantom.json"],
}
VALUES: list[Any] = [
    None, True, False, 0, 5, -1, 1e308, -1e308, 1e300, float("nan"), float("inf"), 10**299, 2**63, "", " ", "x", "0",
    "1e400", "nan", "[]", "[1, 2, 3]", "[0, 0, 0, 0]", "1" * DIGITS, "9" * 5000, "x" * 300, "y/" * 3000,
    "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800", "\udfff.png", "a\nb", "a\tb", 'a"b', "*?[a]", "..", ".", "٣",
    "²", [], {}, [[]], [1], [1, 2, 3, 4], [[1, 2, 3, 4]], [None], {"a": 1}, [[1, 2], [3, 4]],
]  # fmt: skip
CELLS = [v if isinstance(v, str) else str(v) for v in VALUES if v not in ("\ud800", "\udfff.png")]
Mutation = Callable[[np.random.Generator, bytes], bytes]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small set in the layout of every source."""
    root = tmp_path_factory.mktemp("sets")
    for name in LAYOUTS:
        write_source(name, root / name, 3, seed=4, size=(224, 224))
    write_chestx_det(root / "chestx_det", names={"36201.png": "00000072_000", "36199.png": "00000310_001.png"})
    write_rsna(root / "rsna", names={"a": "00000072_000", "b": "00000310_001"})
    studies = [entry["StudyID"] for entry in json.loads((root / "padchest_gr" / "filtered_studies.json").read_bytes())]
    rows = ["StudyID,PatientID", *(f"{study},p{k}" for k, study in enumerate(studies))]
    (root / "padchest_gr" / "patients.csv").write_text("\n".join(rows) + "\n")
    images = [p.stem for p in (root / "nih_cxr14" / "images").iterdir()]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    rows = [f"{image}.png,Mass|Nodule,0,{k},{50 + k},F,PA" for k, image in enumerate(images)]
    (root / "nih_cxr14" / "Data_Entry_2017_v2020.csv").write_text("\n".join([header, *rows]) + "\n")
    return {name: root / name for name in FILES}


def mutate_text(r: np.random.Generator, data: bytes) -> bytes:
    """Cut, flip, double or insert bytes."""
    at, end = sorted(int(v) for v in r.integers(0, len(data) + 1, 2))
    inserted = [b'"', b"\0", b"\xff\xfe", b"\r", b"\n", b",", b"\t", b"\xef\xbb\xbf", b"{", b"[", b"}", b"\\ud800"]
    return [
        data[:at],
        data[:at] + data[end:],
        data[:end] + data[at:end] + data[end:],
        data[:at] + inserted[int(r.integers(0, len(inserted)))] + data[at:],
        data[:at] + r.bytes(min(9, end - at)) + data[end:],
        b"",
    ][int(r.integers(0, 6))]


def mutate_table(r: np.random.Generator, data: bytes) -> bytes:
    """Change cells, rows and columns."""
    text = data.decode()
    delimiter = "\t" if "\t" in text else ","
    rows = [line.split(delimiter) for line in text.splitlines()]
    for _ in range(int(r.integers(1, 4))):
        y = int(r.integers(0, len(rows)))
        x = int(r.integers(0, len(rows[y])))
        kind = int(r.integers(0, 9))
        if kind < 4:
            rows[y][x] = CELLS[int(r.integers(0, len(CELLS)))]
        elif kind == 4:
            rows.insert(int(r.integers(0, len(rows))), list(rows[y]))
        elif kind == 5:
            rows[y][x] = '"' + rows[y][x]
        elif kind == 6:
            rows[y] = rows[y][:x] or [""]
        elif kind == 7:
            rows = [[*row, row[min(x, len(row) - 1)]] for row in rows]
        else:
            other = int(r.integers(0, len(rows)))
            rows[y], rows[other] = rows[other], rows[y]
    return "\n".join(map(delimiter.join, rows)).encode() + b"\n" * int(r.integers(0, 2))


def places(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON document."""
    children: Any = enumerate(document) if isinstance(document, list) else ()
    if isinstance(document, dict):
        children = document.items()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


def mutate_json(r: np.random.Generator, data: bytes) -> bytes:
    """Change values, fields and elements."""
    document = json.loads(data)
    marks = {}
    for number in range(int(r.integers(1, 4))):
        found = places(document)
        path = found[int(r.integers(0, len(found)))]
        if not path:
            document = VALUES[int(r.integers(0, len(VALUES)))] if r.random() < 0.2 else document
            continue
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        kind = int(r.integers(0, 8))
        if kind < 4:
            parent[path[-1]] = VALUES[int(r.integers(0, len(VALUES)))]
        elif kind == 4:
            del parent[path[-1]]
        elif kind == 5 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        elif kind == 5:
            parent[f"{path[-1]}_"] = parent.pop(path[-1])
        else:  # what json.dumps cannot write
            deep = "[" * 100_000 + "]" * 100_000
            raw = ["7" * DIGITS, "7" * 5000, "-Infinity", deep, '{"a": 1, "a": 2}', "-1e999"]
            marks[f"mark-{number}"] = raw[int(r.integers(0, len(raw)))]
            parent[path[-1]] = f"mark-{number}"
    text = json.dumps(document)
    for mark, raw_text in marks.items():
        text = text.replace(f'"{mark}"', raw_text)
    return text.encode()


@pytest.mark.parametrize(("name", "file"), [(name, file) for name, files in FILES.items() for file in files])
def test_every_mutation_is_read_or_refused(sets: dict[str, Path], tmp_path: Path, name: str, file: str) -> None:
    root = tmp_path / name
    shutil.copytree(sets[name], root)
    original = (root / file).read_bytes()
    structure = mutate_json if file.endswith(".json") else mutate_table
    outcomes = {"read": 0, "refused": 0}
    for seed in range(SEEDS):
        r = np.random.default_rng([seed, 17])
        mutation: Mutation = mutate_text if seed % 5 == 4 else structure
        (root / file).write_bytes(mutation(r, original))
        try:
            source = open_source(name, root)
            report = verify_source(name, root, decode=False)
        except SourceError as error:
            f"{error}".encode()  # printable
            outcomes["refused"] += error.where is not None
            continue
        outcomes["read"] += 1
        for index, candidate in enumerate(source):
            assert candidate.index == index, seed
            f"{candidate.id} {candidate.patient_id} {source.where(index)}".encode()
            assert not candidate.masks or len(candidate.masks) == len(candidate.boxes), seed
        "\n".join(p for problems in report.problems().values() for p in problems).encode()
    assert sum(outcomes.values()) == SEEDS  # every refusal says where
    assert min(outcomes.values()) > SEEDS // 20  # the mutations neither all pass nor all break the file


@pytest.mark.parametrize("name", list(FILES))
def test_a_folder_where_the_table_should_be(sets: dict[str, Path], tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    shutil.copytree(sets[name], root)
    for file in FILES[name]:
        (root / file).unlink()
        (root / file).mkdir()
        with pytest.raises(SourceError, match=r"not a file|cannot be read"):
            open_source(name, root)
