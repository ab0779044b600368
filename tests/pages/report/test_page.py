"""The report's content: numbers as scored, chance beside them, hostile text as text, credentialed images guarded."""

from __future__ import annotations

import base64
import json
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from medground_bench.cli import app
from medground_bench.core.errors import MedGroundError
from medground_bench.pages.report import write_report
from medground_bench.pages.report.gallery import choose
from medground_bench.pages.report.tables import breakdown
from medground_bench.scoring import submission_rows, write_scores
from tests.pages.report.conftest import HOSTILE, Chain


@pytest.fixture(scope="session")
def report(chain: Chain) -> Path:
    return write_report(
        chain.root / "report.html",
        chain.dataset.path,
        chain.submissions,
        scores=[chain.scores],
        verdicts=[chain.verdicts],
    )


def island(path: Path) -> Any:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S)[1])  # type: ignore[index]


def test_the_summary_has_every_method_and_chance(chain: Chain, report: Path) -> None:
    rows = list(submission_rows([chain.scores]))
    assert [r.title for r in rows if r.kind == "method"] == ["attention", "oracle", HOSTILE]
    assert [r.title for r in rows if r.kind == "chance"] == [
        "chance: whole image",
        "chance: random box",
        "chance: centre prior",
    ]
    html = report.read_text()
    table = re.search(r'id="summary-table">(.*?)</table>', html, re.S)[1]  # type: ignore[index]
    for row in rows:
        assert f"{row.aggregate.values['iou'].value:.3f}" in table
        assert f"<td>{row.records}</td><td>{row.clusters}</td>" in table
    assert "1.000" in table  # the oracle


def test_the_funnel_counts_what_passed(report: Path, chain: Chain) -> None:
    html = report.read_text()
    funnel = re.search(r'<section id="funnel">(.*?)</section>', html, re.S)[1]  # type: ignore[index]
    numbers = [int(n) for n in re.findall(r'<span class="n">(\d+)</span>', funnel)]
    assert numbers[0] == len(chain.dataset) + 1
    assert numbers[-1] == len(chain.dataset)
    assert "tiny_qwen" in funnel


def test_breakdown_means_are_means_of_the_scores(chain: Chain) -> None:
    found = breakdown([chain.scores], "attribute", "finding")
    attributes = chain.scores.table.attribute
    names = [c["name"] for c in found["columns"]]
    assert names == sorted(set(attributes.tolist()))
    first = next(row for row in found["rows"] if row["method"] == "attention")
    iou = chain.scores.submissions[0].scores["iou"]
    for name, mean in zip(names, first["means"], strict=True):
        assert mean == pytest.approx(iou[attributes == name].mean())
    assert [row["chance"] for row in found["rows"]] == [False] * 3 + [True] * 3
    assert found["best"] == pytest.approx(1.0)


def test_the_gallery_holds_the_records_as_they_are(chain: Chain, report: Path) -> None:
    data = island(report)
    rows = {row.id: row for row in chain.dataset}
    assert {r["id"] for r in data["records"]} == set(rows)
    for record in data["records"]:
        row = rows[record["id"]]
        assert record["boxes"] == [list(box) for box in row.boxes]
        assert record["predictions"]["oracle"]["scores"] == pytest.approx([1, 1, 1, 1])
        assert data["images"][record["image"]].startswith("data:image/jpeg;base64,")
    assert data["methods"][0] == "oracle"
    assert len(data["images"]) == len({row.image_id for row in rows.values()}), "an image is stored once"
    oracle = data["records"][0]["predictions"]["oracle"]
    assert [name for name, _ in oracle["concepts"]] == ["left lung", "mediastinum", "right lung"]
    assert oracle["texts"] == ["Yes", HOSTILE]
    assert "heat" not in oracle
    assert data["records"][1]["predictions"]["oracle"]["note"] == "left lung, fallback"


def test_heat_maps_are_small_and_where_they_were(report: Path) -> None:
    heat = island(report)["records"][0]["predictions"][HOSTILE]["heat"]
    values = np.frombuffer(base64.b64decode(heat["data"]), np.uint8).reshape(heat["rows"], heat["cols"])
    assert values.shape == (56, 56)
    y, x = np.nonzero(values > 128)
    assert (y.min() * 4, (y.max() + 1) * 4) == pytest.approx((100, 150), abs=4)
    assert (x.min() * 4, (x.max() + 1) * 4) == pytest.approx((20, 60), abs=4)


def test_hostile_text_stays_text(report: Path) -> None:
    html = report.read_text()
    assert "<img src=x" not in html
    assert "window.evil=1</script>" not in html
    assert html.count("<script") == 3  # the theme and tables, the data, the gallery


def test_nothing_on_the_page_points_outside(report: Path) -> None:
    html = re.sub(r'id="data">.*?</script>', "", report.read_text(), flags=re.S)
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", html)
    assert not re.search(r"@import|url\(", html)
    assert str(report.parent) not in html, "the page tells of the machine's folders"


def test_an_open_page_is_public_and_a_credentialed_one_private(
    report: Path, credentialed_chain: Chain, tmp_path: Path
) -> None:
    assert 'class="banner"' not in report.read_text()
    chain = credentialed_chain
    path = write_report(tmp_path / "closed.html", chain.dataset.path, chain.submissions, scores=[chain.scores])
    banner = re.search(r'<div class="banner"[^>]*>(.*?)</div>', path.read_text())
    assert banner is not None
    assert "VinDr-CXR" in banner[1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)  # one that others could read is replaced by one that they cannot
    write_report(path, chain.dataset.path, chain.submissions, scores=[chain.scores])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_sample_is_seeded_and_said(chain: Chain, tmp_path: Path) -> None:
    def ids(seed: int) -> list[str]:
        path = write_report(
            tmp_path / "r.html", chain.dataset.path, chain.submissions, scores=[chain.scores], records=3, seed=seed
        )
        assert f"3 of {len(chain.dataset)} records, a sample with seed {seed}" in path.read_text()
        return [r["id"] for r in island(path)["records"]]

    assert ids(0) == ids(0)
    assert len({tuple(ids(seed)) for seed in range(4)}) > 1
    assert choose(["a", "b"], 5, 0) == {"a", "b"}


def test_scores_of_another_dataset_are_refused(chain: Chain, credentialed_chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match="scores are of another dataset"):
        write_report(tmp_path / "r.html", credentialed_chain.dataset.path, chain.submissions, scores=[chain.scores])
    with pytest.raises(MedGroundError, match="nothing to report"):
        write_report(tmp_path / "r.html", chain.dataset.path, [])
    assert not (tmp_path / "r.html").exists()


def test_the_command_scores_what_has_no_scores(chain: Chain, tmp_path: Path) -> None:
    scores = write_scores(chain.scores, tmp_path / "scores.json")
    out = tmp_path / "r.html"
    folders = [str(p) for p in chain.submissions]
    done = CliRunner().invoke(app, ["report", *folders, "--dataset", str(chain.dataset.path), "--out", str(out)])
    assert done.exit_code == 0, done.output
    with_scores = tmp_path / "s.html"
    again = [
        "report",
        *folders,
        "--dataset",
        str(chain.dataset.path),
        "--scores",
        str(scores),
        "--out",
        str(with_scores),
    ]
    assert CliRunner().invoke(app, again).exit_code == 0
    assert island(out) == island(with_scores)
    assert "Causal funnel" not in out.read_text()
