"""Results of protocols in the score file, on the report and on the leaderboard."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medground_bench.cli import _score_tables
from medground_bench.cli._score_tables import print_comparison
from medground_bench.core.errors import ScoringError
from medground_bench.pages.leaderboard import collect_results, leaderboard_page
from medground_bench.pages.leaderboard.public import public_scores
from medground_bench.pages.report.page import report_page
from medground_bench.pages.report.tables import protocol_table
from medground_bench.scoring import compare_scores, read_scores, score_submissions, write_scores
from medground_bench.scoring.protocols.join import join_protocols
from medground_bench.scoring.protocols.result import read_results
from tests.baselines.kit import WEIGHTS
from tests.scoring.protocols.kit import World, additive, quadrant, quadrant_map, run, world

OPTIONS = {"fill": "black", "regions": "tiles:2x2", "steps": 4, "randoms": 2}
HOSTILE = "<script>window.evil=1</script>"


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, additive, n=24)


@pytest.fixture
def joined(board: World) -> tuple[World, Path, Any]:
    path = board.submit("right", lambda r: [quadrant(0)], lambda r: quadrant_map(WEIGHTS))
    run(board, path, "deletion", OPTIONS)
    run(board, path, "strata")
    scores = score_submissions([path], board.folder, resamples=200)
    assert join_protocols(scores, read_results(board.root / "out")) == []
    return board, path, scores


def test_there_and_back(joined: tuple[World, Path, Any], tmp_path: Path) -> None:
    _, _, scores = joined
    read = read_scores(write_scores(scores, tmp_path / "scores.json"))
    one, other = (s.submissions[0].protocols for s in (scores, read))
    assert list(one) == list(other) == ["deletion", "strata"]
    assert other["deletion"].find().values["deletion"].value == pytest.approx(0.34375, abs=1e-4)
    assert one["deletion"].aggregates == other["deletion"].aggregates
    assert [m.name for m in other["deletion"].measures][:2] == ["skill", "difference"]


def test_the_measure_in_front_is_pooled_and_printed(joined: tuple[World, Path, Any], tmp_path: Path) -> None:
    board, _, scores = joined
    skill, iou = "deletion.skill", "strata.iou"
    before = scores.submissions[0].protocols["deletion"].find().values["skill"]
    report = compare_scores([read_scores(write_scores(scores, tmp_path / "scores.json"))], resamples=10_000)
    assert {k: m.bounds for k, m in report.measures.items()} == {skill: (-math.inf, math.inf), iou: (0, 1)}
    (row,) = (r for r in report.rows if r.kind == "method" and r.aggregate.level == "all")
    assert row.cell(skill).value == pytest.approx(before.value, abs=1e-9)
    assert row.flat()[iou] == 1.0
    for count, heading in ((2, "skill ↑"), (1, "deletion: skill ↑")):
        shown = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_score_tables, "_BESIDE", count)
            print_comparison(report, Console(file=shown, width=250), levels=["all"], metric="iou")
        assert heading in shown.getvalue()
    # A method that no protocol looked at has none, and the others keep theirs.
    other = board.submit("other", lambda r: [quadrant(1)])
    scores = score_submissions([board.root / "submissions" / "right", other], board.folder, resamples=200)
    join_protocols(scores, read_results(board.root / "out"))
    rows = {r.name: r for r in compare_scores([scores], resamples=200).rows if r.kind == "method"}
    assert (rows["right"].cell(iou) is None, rows["other"].cell(iou) is None) == (False, True)


def test_results_of_other_predictions_are_told(joined: tuple[World, Path, Any]) -> None:
    board, _, _ = joined
    other = board.submit("right", lambda r: [quadrant(1)], lambda r: quadrant_map(WEIGHTS))
    scores = score_submissions([other], board.folder, resamples=200)
    left = join_protocols(scores, read_results(board.root / "out"))
    assert left == [
        f"{name} on right for tiny_a: its predictions are not among these" for name in ("deletion", "strata")
    ]
    assert scores.submissions[0].protocols == {}


def test_pages_show_them(joined: tuple[World, Path, Any], tmp_path: Path) -> None:
    board, path, scores = joined
    scores.submissions[0].protocols["deletion"] = type(scores.submissions[0].protocols["deletion"])(
        **{**vars(scores.submissions[0].protocols["deletion"]), "note": HOSTILE}
    )
    table = protocol_table([scores])
    assert [(c["name"], c["measure"], c["arrow"]) for c in table["columns"]] == [
        ("deletion", "skill", "↑"),
        ("strata", "iou", "↑"),
    ]
    assert table["rows"][0]["cells"][1]["value"] == 1.0
    html, _ = report_page({"direct": board.folder}, [scores], [path])
    write_scores(scores, tmp_path / "results" / "scores.json")
    board_page = leaderboard_page(*collect_results(tmp_path / "results"))
    for page in (html, board_page):
        assert "Beyond overlap" in page
        assert "Do the hottest parts of the map carry the answer" in page
        assert HOSTILE not in page
        assert "&lt;script&gt;window.evil" in page


def test_pages_without_protocols_are_as_before(board: World) -> None:
    path = board.submit("right", lambda r: [quadrant(0)])
    scores = score_submissions([path], board.folder, resamples=200)
    assert protocol_table([scores]) == {"columns": [], "rows": []}
    assert "Beyond overlap" not in leaderboard_page([scores])


def test_a_board_keeps_rounded_means_of_large_groups(joined: tuple[World, Path, Any]) -> None:
    _, _, scores = joined
    kept = public_scores(scores).submissions[0].protocols["deletion"]
    assert {a.level for a in kept.aggregates} == {"all"}  # the datasets have 12 records each
    assert kept.find().values["deletion"].value == 0.34


def test_a_damaged_one_is_refused(joined: tuple[World, Path, Any], tmp_path: Path) -> None:
    _, _, scores = joined
    path = write_scores(scores, tmp_path / "scores.json")
    data = json.loads(path.read_text())
    data["submissions"][0]["protocols"]["deletion"]["measures"][0]["better"] = "<b>"
    path.write_text(json.dumps(data))
    with pytest.raises(ScoringError, match="damaged"):
        read_scores(path)
