"""What a row of a table is about: methods, controls and chance are told apart everywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from medground_bench.dataset.folder import open_folder
from medground_bench.pages.leaderboard.page import leaderboard_page
from medground_bench.scoring import ScoreFile, compare_scores, read_scores, score_submissions, write_scores
from medground_bench.scoring.rows import submission_rows
from medground_bench.submission import write_submission
from tests.scoring.folders import header, make_rows, perfect, write_folder, write_perfect


@pytest.fixture
def scored(tmp_path: Path) -> ScoreFile:
    rows = make_rows(12, lvlms=("tiny_a",))
    control = header(rows, method="centre_prior") | {"settings": {"frame_side": 224, "control": True}}
    folders = [
        write_perfect(tmp_path / "a", rows),
        write_submission(tmp_path / "b", control, perfect(rows)),
    ]
    folder = open_folder(write_folder(tmp_path / "medground-bench", rows), "direct")
    return read_scores(write_scores(score_submissions(folders, folder, resamples=200), tmp_path / "scores.json"))


def test_a_control_is_marked_in_every_table(scored: ScoreFile) -> None:
    kinds = Counter((row.kind, row.name) for row in submission_rows([scored]))
    assert kinds["method", "oracle"] == kinds["control", "centre_prior"] == kinds["chance", "centre_prior"] == 1
    assert {row.title for row in submission_rows([scored])} >= {"oracle", "control: centre prior"}
    compared = {(row.kind, row.name) for row in compare_scores([scored], resamples=200).rows}
    assert {("method", "oracle"), ("control", "centre_prior"), ("chance", "centre_prior")} <= compared


def test_a_control_takes_no_rank(scored: ScoreFile) -> None:
    html = leaderboard_page([scored])
    assert "1 method, 2 submissions" in html
    assert "control: centre prior" in html
    # Both have the same perfect scores: had the control a rank, there would be a second one.
    assert 'data-csv="1">1</td>' in html
    assert 'data-csv="2"' not in html
