"""The leaderboard page: ranks among comparable rows, chance beside them, and other people's files told apart."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medground_bench.cli import app
from medground_bench.core.errors import MedGroundError
from medground_bench.dataset.folder import open_folder
from medground_bench.pages.leaderboard import collect_results, leaderboard_page, write_leaderboard
from medground_bench.pages.leaderboard.public import public_scores
from medground_bench.scoring import score_submissions, write_scores
from medground_bench.submission import write_submission
from tests.scoring.folders import header, make_rows, perfect, write_folder

ROWS = make_rows(6)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Score file of three methods as JSON: one right everywhere, one half right, one that never answers."""
    root = tmp_path_factory.mktemp("leaderboard")
    dataset = open_folder(write_folder(root / "dataset", ROWS), "direct")
    right = perfect(ROWS)
    half = [{**row, "boxes": row["boxes"] if k % 2 else []} for k, row in enumerate(right)]
    none = [{**row, "boxes": []} for row in right]
    folders = [
        write_submission(root / name, header(ROWS, method=name), rows)
        for name, rows in (("half", half), ("silent", none), ("oracle", right))
    ]
    return json.loads(write_scores(score_submissions(folders, dataset, resamples=100), root / "s.json").read_text())


def put(folder: Path, name: str, data: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))


def cells(html: str) -> list[dict[str, str]]:
    """Text of the cells of the results table, by its headings."""
    table = re.search(r'id="board">(.*?)</table>', html, re.S)[1]  # type: ignore[index]

    def texts(tag: str, part: str) -> list[str]:
        found = re.findall(rf"<{tag}[ >].*?</{tag}>", part, re.S)
        return [re.sub(r"<[^>]+>", " ", c).split("[")[0].strip() for c in found]

    heads = texts("th", table)
    return [dict(zip(heads, texts("td", r), strict=True)) for r in re.findall(r"<tr data-lvlm=.*?</tr>", table, re.S)]


def test_ranks_numbers_and_chance(scored: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, "a/scores.json", scored)
    files, rejected = collect_results(tmp_path)
    assert not rejected
    pooled = [row for row in cells(leaderboard_page(files)) if row["dataset"] == "all sources"]
    ious = [float(row["IoU"]) for row in pooled]
    assert ious == sorted(ious, reverse=True), "methods, chance rows and ceilings in order of score"
    methods, others = ([row for row in pooled if (":" in row["method"]) is marked] for marked in (False, True))
    assert [(row["#"], row["method"], row["IoU"]) for row in methods] == [
        ("1", "oracle", "1.000"),
        ("2", "half", "0.500"),
        ("3", "silent", "0.000"),
    ]
    assert sorted(row["method"].split(":")[0] for row in others) == ["ceiling"] * 2 + ["chance"] * 3
    assert all(row["#"] == row["tier"] == "" for row in others), "chance rows and ceilings have no rank"
    assert {(row["records"], row["patients"]) for row in pooled} == {("6", "3")}
    assert {row["p (chance)"] for row in methods} == {"few"}
    assert {row["tier"] for row in methods} == {""}, "three patients are too few to tell methods apart"
    assert {row["p (chance)"] for row in others} == {""}


def test_methods_that_the_test_does_not_tell_apart_share_a_tier(tmp_path: Path) -> None:
    rows = make_rows(24)
    dataset = open_folder(write_folder(tmp_path / "dataset", rows), "direct")
    right = perfect(rows)
    most = [{**row, "boxes": row["boxes"] if k != 5 else []} for k, row in enumerate(right)]
    none = [{**row, "boxes": []} for row in right]
    cost = {"forward": 12.0, "backward": 3.0, "seconds": 0.25}
    for name, said in (("silent", none), ("most", most), ("oracle", right)):
        made = write_submission(tmp_path / name, header(rows, method=name, cost=cost), said)
        write_scores(score_submissions([made], dataset, resamples=100), tmp_path / "results" / f"{name}.json")
    html = leaderboard_page(*collect_results(tmp_path / "results"))
    found = [r for r in cells(html) if r["#"] and r["dataset"] == "all sources"]
    assert [(r["method"], r["tier"]) for r in found] == [("oracle", "1"), ("most", "1"), ("silent", "2")]
    assert {(r["passes"], r["seconds"]) for r in found} == {("12 + 3", "0.25")}
    assert html.count('data-passes="15.0"') == 9
    assert "@article{medfocus2026" in html


def test_two_datasets_are_not_ranked_together(scored: dict[str, Any], tmp_path: Path) -> None:
    other = copy.deepcopy(scored)
    other["dataset"]["fingerprint"] = "sha256:" + "7" * 64
    put(tmp_path, "a.json", scored)
    put(tmp_path, "b.json", other)
    board = cells(leaderboard_page(*collect_results(tmp_path)))
    firsts = [r for r in board if r["#"] == "1" and r["dataset"] == "all sources"]
    assert len(firsts) == 2


def test_rows_lead_to_a_report_that_shows_them(scored: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, "results/scores.json", scored)
    files, _ = collect_results(tmp_path / "results")
    plain = leaderboard_page(files)
    assert 'class="record"' not in plain
    shown = {("oracle", "tiny_a", "direct"), ("stranger", "tiny_a", "direct"), ("half", "tiny_b", "direct")}
    html = leaderboard_page(files, report=("../my%20report.html", shown))
    links = re.findall(r'<a class="record" href="([^"]+)"', html)
    assert set(links) == {"../my%20report.html#method=oracle&amp;lvlm=tiny_a&amp;mode=direct"}
    assert not any(row["id"] in html for row in ROWS)  # ids of closed sources would name images


def test_no_report(scored: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, "results/scores.json", scored)
    (tmp_path / "page.html").write_text("<p>a page</p>")
    words = ["leaderboard", str(tmp_path / "results"), "--out", str(tmp_path / "b.html"), "--report"]
    result = CliRunner().invoke(app, [*words, str(tmp_path / "page.html")])
    assert isinstance(result.exception, MedGroundError)
    assert result.exception.message == "this is not a report"
    assert isinstance(CliRunner().invoke(app, [*words, str(tmp_path / "none.html")]).exception, FileNotFoundError)
    assert not (tmp_path / "b.html").exists()


def test_a_board_without_tiers_says_why(scored: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, "results/scores.json", scored)
    (file,), _ = collect_results(tmp_path / "results")
    assert "from fewer than six patients" in leaderboard_page([file])  # three patients
    assert "keeps rounded means only" in leaderboard_page([public_scores(file, min_records=1)])
    many = make_rows(16)
    dataset = open_folder(write_folder(tmp_path / "many", many), "direct")
    submission = write_submission(tmp_path / "sub", header(many), perfect(many))
    assert "There are no tiers" not in leaderboard_page([score_submissions([submission], dataset, resamples=100)])


def test_a_result_counts_once(scored: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, "a.json", scored)
    put(tmp_path, "b.json", scored)
    files, rejected = collect_results(tmp_path)
    assert [len(f.submissions) for f in files] == [3]
    assert all("already in a.json" in entry["reason"] for entry in rejected)
    assert len(rejected) == 3


def spoil(data: dict[str, Any], kind: str) -> Any:
    data = copy.deepcopy(data)
    one = data["submissions"][0]
    if kind == "no method":
        del one["provenance"]["method"]
    elif kind == "method is a list":
        one["provenance"]["method"] = [["x"]]
    elif kind == "no chance":
        one["chance_aggregates"] = {}
    elif kind == "score above 1":
        for aggregate in one["aggregates"]:
            aggregate["values"]["iou"][0] = 7.0
    elif kind == "text for a score":
        one["aggregates"][0]["values"]["iou"][0] = "<b>1</b>"
    elif kind == "aggregates missing":
        one["aggregates"] = [{"level": "all"}]
    elif kind == "rows out of range":
        one["rows"][0] = 10**6
    elif kind == "later format":
        data["format"] = 99
    elif kind == "list":
        return []
    elif kind == "deep":
        return "[" * 100_000
    elif kind == "not JSON":
        return "{"
    return data


@pytest.mark.parametrize(
    "kind",
    [
        "no method",
        "method is a list",
        "no chance",
        "score above 1",
        "text for a score",
        "aggregates missing",
        "rows out of range",
        "later format",
        "list",
        "deep",
        "not JSON",
    ],
)
def test_spoilt_files_are_named_and_do_not_hide_the_others(scored: dict[str, Any], tmp_path: Path, kind: str) -> None:
    put(tmp_path, "good.json", scored)
    put(tmp_path, "bad.json", spoil(scored, kind))
    files, rejected = collect_results(tmp_path)
    assert {entry["path"] for entry in rejected} == {"bad.json"}
    html = leaderboard_page(files, rejected)
    assert len([r for r in cells(html) if r["dataset"] == "all sources" and r["#"]]) == 3
    assert "bad.json" in html


def test_a_ratio_may_be_open_above_and_a_share_may_not(scored: dict[str, Any], tmp_path: Path) -> None:
    for name in ("precision_lift", "iou"):
        few = copy.deepcopy(scored)
        for one in few["submissions"]:
            for aggregate in one["aggregates"]:
                aggregate["values"][name] = [0.5, 0.0, None]  # how a file writes that an interval has no upper end
        put(tmp_path / name, "few.json", few)
    files, rejected = collect_results(tmp_path / "precision_lift")
    assert not rejected
    assert files[0].submissions[0].aggregates[0].values["precision_lift"].high == math.inf
    assert "few.json" not in leaderboard_page(files, rejected)
    assert "iou is out of range" in collect_results(tmp_path / "iou")[1][0]["reason"]


def test_hostile_provenance_is_shown_as_text(scored: dict[str, Any], tmp_path: Path) -> None:
    evil = copy.deepcopy(scored)
    nested: Any = 1
    for _ in range(400):
        nested = {"x": nested}
    for one in evil["submissions"]:
        one["provenance"] |= {"method": one["provenance"]["method"] + "<svg onload=alert(1)>", "settings": nested}
        one["warnings"] = ["<script>alert(2)</script>"]
    put(tmp_path, "<b>x</b>.json", evil)
    put(tmp_path, "<i>y.json", "{")
    html = leaderboard_page(*collect_results(tmp_path))
    assert not re.search(r"<(svg|b>x|i>y|script>alert)", html)
    assert "&lt;svg onload" in html
    assert "…" in html


def test_links_and_hidden_files_are_not_read(scored: dict[str, Any], tmp_path: Path) -> None:
    put(tmp_path, "results/.cache/x.json", scored)
    put(tmp_path, "elsewhere.json", scored)
    put(tmp_path, "results/submission.json", {})
    (tmp_path / "results" / "link.json").symlink_to(tmp_path / "elsewhere.json")
    files, rejected = collect_results(tmp_path / "results")
    assert not files
    assert [entry["path"] for entry in rejected] == ["link.json"]


def test_the_command_and_an_empty_folder(scored: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match="no such folder"):
        write_leaderboard(tmp_path / "none", tmp_path / "x.html")
    (tmp_path / "results").mkdir()
    assert "No results yet" in write_leaderboard(tmp_path / "results", tmp_path / "x.html").read_text()
    put(tmp_path, "results/a.json", scored)
    put(tmp_path, "results/b.json", "{")
    out = tmp_path / "board.html"
    done = CliRunner().invoke(app, ["leaderboard", str(tmp_path / "results"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "left out: b.json" in done.output
    assert "3 submissions" in done.output
    html = out.read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
