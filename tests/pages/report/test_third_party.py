"""A method from another package, all the way: listed, run, scored, in the report and on the leaderboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from medground_bench.attribution.generate import generate
from medground_bench.cli import app
from medground_bench.pages.leaderboard import collect_results, leaderboard_page
from medground_bench.pages.report import write_report
from medground_bench.scoring import score_submissions, write_scores
from tests.attribution.test_method import installed  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm
    from tests.pages.report.conftest import Chain


def test_it_is_listed_run_scored_and_shown(installed: Path, chain: Chain, tiny_qwen: Lvlm, tmp_path: Path) -> None:  # noqa: F811
    listed = json.loads(CliRunner().invoke(app, ["methods", "--format", "json"]).output)
    assert "brightness" in {entry["name"] for entry in listed}
    done = generate(chain.dataset, tiny_qwen, ["brightness"], tmp_path / "out", settings={"brightness": {"power": 3.0}})
    assert done.computed == len(chain.dataset)
    assert not done.errors
    folder = done.submissions["brightness"]
    assert json.loads((folder / "submission.json").read_text())["settings"]["power"] == 3.0
    scores = score_submissions([folder, *chain.submissions], chain.dataset, resamples=100)
    write_scores(scores, tmp_path / "results" / "scores.json")
    files, rejected = collect_results(tmp_path / "results")
    assert not rejected
    cell = r'<td class="text pin" data-csv="[^"]*brightness"><a href="#result-0-0">[^<]*brightness</a></td>'
    assert re.search(cell, leaderboard_page(files))
    page = write_report(tmp_path / "report.html", chain.dataset.path, [folder], scores=[scores])
    assert "brightness" in page.read_text()
