from __future__ import annotations

from pathlib import Path

import pytest

from medground_bench.core.schema import Candidate, KeptCandidate, candidate_id, question, record_id


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
    record = KeptCandidate("m", "direct", candidate, "Yes", "No", "Yes", "Yes")
    assert candidate.id == "d/i/a#2"
    assert record.id == record_id("m", "direct", "d", "i", "a", 2) == "m/direct/d/i/a#2"
    assert record.question == question("a", "direct")
