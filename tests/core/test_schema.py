from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medground_bench.core.schema import Candidate, Record, candidate_id, fingerprint, question, record_id

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


def test_questions() -> None:
    bare = "Is there evidence of pleural effusion in the image?"
    assert question("pleural effusion") == bare
    assert question("pleural effusion", "direct") == f"{bare} Answer directly with yes or no without any explanation."
    assert question("pleural effusion", "reason") == f"{bare} Think step by step and answer with yes or no."
    with pytest.raises(ValueError, match="unknown mode 'cot'"):
        question("x", "cot")


def test_ids() -> None:
    assert candidate_id("d", "i", "a") == "d/i/a"
    assert candidate_id("d", "i", "a", 2) == "d/i/a#2"
    candidate = Candidate(0, "d", "i", "p", "a", ((0, 0, 1, 1),), Path("x"), ordinal=2)
    record = Record("m", "direct", candidate, "Yes", "No", "Yes", "Yes")
    assert candidate.id == "d/i/a#2"
    assert record.id == record_id("m", "direct", "d", "i", "a", 2) == "m/direct/d/i/a#2"
    assert record.question == question("a", "direct")


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
