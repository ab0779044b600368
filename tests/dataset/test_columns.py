"""The table of columns: what is read from it, and the record that mirrors it."""

from __future__ import annotations

import dataclasses
import json

import datasets
import numpy as np
import pytest

from medground_bench.core.errors import BuildError
from medground_bench.dataset.columns import COLUMNS, WITHHELD, Record, features, fingerprint, parquet_metadata

ROW = {
    "id": "m/direct/d/i/a",
    "dataset": "d",
    "model": "m",
    "mode": "direct",
    "image_id": "i",
    "patient_id": "p",
    "width": 10,
    "height": 20,
    "attribute": "a",
    "question": "q",
    "response": "Yes",
    "boxes": [[1.0, 2.0, 3.0, 4.0]],
}


def test_the_record_has_the_columns_and_only_them() -> None:
    names = [f.name for f in dataclasses.fields(Record)]
    assert [c for c in COLUMNS if c != "image"] == [n for n in names if n != "load_image"]


def test_a_record_is_its_row() -> None:
    record = Record.from_row({**ROW, "answer": "Yes", "image": {"bytes": b""}, "colour": "red"})
    assert record.boxes == ((1.0, 2.0, 3.0, 4.0),)
    assert record.size == (10, 20)
    assert record.prediction is None
    assert {k: v for k, v in record.to_row().items() if v is not None} == {**ROW, "answer": "Yes", "regions": []}
    assert Record.from_row(record.to_row()) == record
    with pytest.raises(BuildError, match="without its image"):
        _ = record.image
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.response = "No"  # type: ignore[misc]


def test_a_withheld_row_is_no_record() -> None:
    with pytest.raises(BuildError, match="ids-only copy"):
        Record.from_row({**ROW, **dict.fromkeys(WITHHELD)})


def test_what_is_withheld_tells_finding_or_image_and_the_rest_does_not() -> None:
    assert set(COLUMNS) - set(WITHHELD) == {"id", "dataset", "model", "mode", "image", "answer"}


def test_features_and_parquet_metadata_agree() -> None:
    assert tuple(features()) == COLUMNS
    stored = json.loads(parquet_metadata()[b"huggingface"])["info"]["features"]
    assert datasets.Features.from_dict(stored) == features()
    without = json.loads(parquet_metadata(image=False)[b"huggingface"])["info"]["features"]
    assert list(without) == [c for c in COLUMNS if c != "image"]


def test_the_fingerprint_is_that_of_folders_already_made() -> None:
    """Computed by version 0.1.0: submissions name it."""
    assert fingerprint([ROW]) == "sha256:42cad7ead4a7cf1593c579114e9d1364cdc6821e9911d9ce49c1a84814c28f3b"


def test_fingerprint_ignores_order_and_other_columns() -> None:
    other = {**ROW, "id": "n"}
    assert fingerprint([ROW, other]) == fingerprint([{**other, "image": b"png"}, ROW])
    assert fingerprint([ROW]).startswith("sha256:")
    assert len(fingerprint([])) == 71


def test_fingerprint_is_the_same_for_equal_boxes_of_any_type() -> None:
    for boxes in ([[1, 2, 3, 4]], ((1, 2, 3, 4),), np.array([[1, 2, 3, 4]])):
        assert fingerprint([{**ROW, "boxes": boxes}]) == fingerprint([ROW])


@pytest.mark.parametrize("key", [k for k in ROW if k != "boxes"])
def test_fingerprint_sees_every_column(key: str) -> None:
    assert fingerprint([{**ROW, key: "changed"}]) != fingerprint([ROW])
    assert fingerprint([{**ROW, "boxes": [[1.0, 2.0, 3.0, 4.5]]}]) != fingerprint([ROW])


def test_regions_are_carried_and_are_not_what_a_dataset_is_known_by() -> None:
    row = {**ROW, "regions": ["left lung"]}
    assert Record.from_row(row).regions == ("left lung",)
    assert Record.from_row({**ROW, "regions": None}).regions == ()
    assert fingerprint([row]) == fingerprint([ROW])
    assert "regions" in WITHHELD
