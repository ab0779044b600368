"""Token scores against hand-made drops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medground_bench.attribution.token_evidence import TokenEvidence
from medground_bench.core.errors import ScoringError
from medground_bench.dataset.folder import open_folder
from medground_bench.scoring import score_submissions, submission_rows, token_auroc
from medground_bench.scoring.rows import output_rows
from medground_bench.submission import write_submission
from tests.scoring.folders import header, make_rows, perfect, write_folder


@pytest.mark.parametrize(
    ("scores", "drops", "expected"),
    [
        ([0, 1, 2, 3], [0, 0, 1.5, 3], 1.0),
        ([3, 2, 1, 0], [0, 0, 1.5, 3], 0.0),
        ([0, 2, 1, 3], [0, 0, 1.5, 3], 0.75),
        ([1, 1, 1, 1], [0, 0, 1.5, 3], 0.5),
        ([0, 1, 2], [0.9, 1.0, 1.1], 1.0),  # more than 1 nat
        ([0, 1], [-5, 2], 1.0),  # what becomes more likely does not rest on it
    ],
)
def test_auroc(scores: list[float], drops: list[float], expected: float) -> None:
    assert token_auroc(scores, drops) == expected


@pytest.mark.parametrize(
    ("scores", "drops"), [([1], [3]), ([1, 2], [0, 0]), ([1, 2, 3], [0, 2]), ([np.nan, 1], [0, 2])]
)
def test_no_auroc(scores: list[float], drops: list[float]) -> None:
    assert np.isnan(token_auroc(scores, drops))


def test_auroc_is_the_rank_statistic() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(3)
    for _ in range(20):
        scores, drops = rng.integers(0, 5, 12), rng.uniform(0, 2, 12)
        rests = drops > 1
        if 0 < rests.sum() < 12:
            u = mannwhitneyu(scores[rests], scores[~rests]).statistic
            assert token_auroc(scores, drops) == pytest.approx(u / rests.sum() / (~rests).sum())


def test_scored_where_the_evidence_is_known(tmp_path: Path) -> None:
    rows = make_rows(16, lvlms=("tiny_a",), mode="reason")
    folder = open_folder(write_folder(tmp_path / "data", rows, "reason"), "reason")
    said = [{**p, "tokens": [0.0, 1.0, 2.0]} for p in perfect(rows)]
    said[0]["tokens"] = [1.0]  # another tokenizer: not judged
    one = write_submission(tmp_path / "one", header(rows), said)
    drops = {row["id"]: np.array([0.0, 0.0, 4.0 if k % 2 else 0.0]) for k, row in enumerate(rows)}
    evidence = TokenEvidence({"lvlm": "tiny_a", "dataset_fingerprint": folder.fingerprint}, drops)
    scores = score_submissions([one], folder, resamples=200, tokens=[evidence])
    values = scores.submissions[0].find().values  # type: ignore[union-attr]
    assert values["token_auroc"].value == 1.0
    assert values["token_known"].value == 0.5
    titles = {row.title: row.cell("token_auroc") for row in output_rows(submission_rows([scores]))}
    assert titles["chance: tokens at random"].value == 0.5  # type: ignore[union-attr]
    other = TokenEvidence({"lvlm": "tiny_b", "dataset_fingerprint": folder.fingerprint}, drops)
    assert "token_auroc" not in score_submissions([one], folder, resamples=100, tokens=[other]).submissions[0].scores
    with pytest.raises(ScoringError, match="another dataset"):
        score_submissions([one], folder, tokens=[TokenEvidence({"dataset_fingerprint": "x"}, drops)])
