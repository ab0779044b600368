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

from medground_bench.causal.cache import EditCache
from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import edit_request
from medground_bench.causal.kept import KeptEdits
from medground_bench.causal.masks import box_mask
from medground_bench.cli import app
from medground_bench.core.errors import MedGroundError
from medground_bench.imaging import Letterbox
from medground_bench.pages.report import write_report
from medground_bench.pages.report.gallery import choose
from medground_bench.pages.report.tables import breakdown
from medground_bench.scoring import score_submissions, submission_rows, write_scores
from medground_bench.scoring.places import place_labels, tell
from medground_bench.sources import open_source
from medground_bench.sources.phantom.source import phantom_for
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


def island(path: Path, name: str = "data") -> Any:
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', path.read_text(), re.S)[1])  # type: ignore[index]


def shown(path: Path) -> list[Any]:
    """The records of the gallery, each with what the index says of it."""
    found = [row for row in island(path)["records"] if row["at"] is not None]
    return [row | island(path, f"r{row['at']}") for row in found]


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
    assert f"{len(chain.dataset)} records of {rows[0].clusters} patients" in html
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
    rows = {row.id: row for row in chain.dataset}
    records = shown(report)
    assert {r["id"] for r in records} == set(rows)
    for record in records:
        row = rows[record["id"]]
        assert record["boxes"] == [list(box) for box in row.boxes]
        assert record["predictions"]["oracle"]["scores"] == pytest.approx([1, 1, 1, 1])
        assert island(report, f"p{record['image']}").startswith("data:image/jpeg;base64,")
    assert island(report)["methods"][0] == "oracle"
    assert len({r["image"] for r in records}) == len({row.image_id for row in rows.values()}), "an image is stored once"
    oracle = records[0]["predictions"]["oracle"]
    assert [name for name, _ in oracle["concepts"]] == ["left lung", "mediastinum", "right lung"]
    assert oracle["texts"] == ["Yes", HOSTILE]
    assert "heat" not in oracle
    assert records[1]["predictions"]["oracle"]["note"] == "left lung, fallback"


def test_the_four_questions_are_shown_with_their_answers(report: Path, chain: Chain) -> None:
    for record in shown(report):
        strip = record["strip"]
        assert [(s["read"], s["expected"]) for s in strip] == [(e, e) for e in ("yes", "no", "yes", "yes")]
        assert strip[0]["image"] == record["image"]
        assert [s["image"] for s in strip[1:]] == [None] * 3, "these verdicts were written without pictures"


def test_the_pictures_of_the_filter_are_found(chain: Chain, tmp_path: Path) -> None:
    record = chain.dataset[0]
    mask = box_mask(record.boxes, record.size)
    editor = load_editor("inpaint")
    cache = EditCache(editor, tmp_path / "verdicts" / "edits")
    header = {"format": 1, "settings": {"editor": dict(editor.settings), "seed": 7}, "sources": {}, "runs": {}}
    (tmp_path / "verdicts" / "filter.json").parent.mkdir(exist_ok=True)
    (tmp_path / "verdicts" / "filter.json").write_text(json.dumps(header))
    kept = KeptEdits(tmp_path / "verdicts")
    assert kept.images(record, record.image, record.boxes) == {}
    (edited,) = cache.edit_batch([edit_request("foreground", record, record.image, mask, 7)])
    found = kept.images(record, record.image, record.boxes)
    assert list(found) == ["foreground"]
    assert np.array_equal(np.asarray(found["foreground"]), np.asarray(edited))
    assert kept.images(record, record.image, [(0, 0, 9, 9)]) == {}, "of other evidence there is none"


def test_every_prediction_is_in_one_class(report: Path, chain: Chain) -> None:
    data = island(report)
    names = {m: {data["classes"][r["class"][k]] for r in data["records"]} for k, m in enumerate(data["methods"])}
    assert names["oracle"] == {"found"}
    assert names[HOSTILE] == {"no boxes"}
    table = re.search(r'id="classes-table">(.*?)</table>', report.read_text(), re.S)[1]  # type: ignore[index]
    for row in re.findall(r"<tr data-mode.*?</tr>", table, re.S):
        assert sum(int(v) for v in re.findall(r'<td data-v="(\d+)"', row)) == len(chain.dataset)


def test_many_records_lie_beside_the_page(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medground_bench.pages.report.page.INSIDE", 2)
    page = tmp_path / "r.html"
    write_report(page, chain.dataset.path, chain.submissions, scores=[chain.scores])
    write_report(page, chain.dataset.path, chain.submissions, scores=[chain.scores])  # replaces its own
    beside = tmp_path / "r_files"
    assert island(page)["folder"] == "r_files"
    assert len(list((beside / "pictures").glob("*.jpg"))) == len({r.image_id for r in chain.dataset})
    assert HOSTILE not in "".join(p.read_text() for p in (beside / "records").iterdir())
    (beside / "report.json").unlink()
    with pytest.raises(MedGroundError, match="something else is there"):
        write_report(page, chain.dataset.path, chain.submissions, scores=[chain.scores])


def test_heat_maps_are_small_and_where_they_were(report: Path) -> None:
    heat = shown(report)[0]["predictions"][HOSTILE]["heat"]
    values = np.frombuffer(base64.b64decode(heat["data"]), np.uint8).reshape(heat["rows"], heat["cols"])
    assert values.shape == (56, 56)
    y, x = np.nonzero(values > 128)
    assert (y.min() * 4, (y.max() + 1) * 4) == pytest.approx((100, 150), abs=4)
    assert (x.min() * 4, (x.max() + 1) * 4) == pytest.approx((20, 60), abs=4)


def test_hostile_text_stays_text(report: Path) -> None:
    html = report.read_text()
    assert "<img src=x" not in html
    assert "window.evil=1</script>" not in html
    data = island(report)
    pictures = len({r["image"] for r in data["records"]})
    # The theme and tables, the index, the gallery; every record and picture.
    assert html.count("<script") == 3 + len(data["records"]) + pictures


def test_nothing_on_the_page_points_outside(report: Path) -> None:
    html = re.sub(r'<script type="application/json".*?</script>', "", report.read_text(), flags=re.S)
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
        return [r["id"] for r in shown(path)]

    assert ids(0) == ids(0)
    assert len({tuple(ids(seed)) for seed in range(4)}) > 1
    assert choose(["a", "b"], 5, 0) == {"a", "b"}
    many = [str(k) for k in range(50)]
    assert "31" in choose(many, 4, 0, {"31": ["rare"]}), "a record that shows something new comes first"
    assert len(choose(many, 4, 0, {k: [k] for k in many})) == 4


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
    assert (island(out), shown(out)) == (island(with_scores), shown(with_scores))
    assert "Causal funnel" not in out.read_text()


@pytest.fixture(scope="session")
def placed(chain: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of scores that know the phantoms' anatomy."""
    known = [open_source("phantom", chain.root / "source")]
    scores = score_submissions(chain.submissions, chain.dataset, resamples=100, sources=known)
    path = tmp_path_factory.mktemp("placed") / "report.html"
    return write_report(path, chain.dataset.path, chain.submissions, scores=[scores])


def test_a_sentence_says_where_maps_and_boxes_lie(placed: Path, chain: Chain) -> None:
    rows = {row.id: row for row in chain.dataset}
    source = {c.id: c for c in open_source("phantom", chain.root / "source")}
    for record in shown(placed):
        row = rows[record["id"]]
        masks = phantom_for(next(c for key, c in source.items() if record["id"].endswith(key))).masks
        labels = place_labels(masks)
        heat = np.load(chain.root / "submissions" / "hostile" / "heatmaps" / "h.npy")
        box = Letterbox.fit(*row.size, 224)
        assert record["predictions"][HOSTILE]["lies"] == tell(labels, row.size, [], heat, box)
        assert record["predictions"]["oracle"]["lies"] == tell(labels, row.size, row.boxes)
        assert record["lies"] == tell(labels, row.size, row.boxes, of="evidence")
        assert "% of the map lies" in record["predictions"]["attention"]["lies"]


def test_the_share_of_attribution_by_place_and_finding(placed: Path, chain: Chain) -> None:
    html = placed.read_text()
    n = len(chain.dataset)
    assert f"Anatomy known of {n} of {n} records." in html
    table = re.search(r'id="places-table">(.*?)</table>', html, re.S)[1]  # type: ignore[index]
    headings = re.findall(r"<th[^>]*>(.*?)</th>", table)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr data-finding.*?</tr>", table, re.S)]
    assert {row[1] for row in rows} == {"all findings", *(r.attribute for r in chain.dataset)}
    assert {row[0] for row in rows} >= {"evidence (expert)", "oracle", "attention"}
    assert headings[6] == "right clavicle"
    assert headings[-1] == "elsewhere"
    for row in rows:
        assert sum(map(float, row[6:])) == pytest.approx(1, abs=0.01)
    whole = {row[0]: row for row in rows if row[1] == "all findings"}
    assert whole["oracle"][6:] == whole["evidence (expert)"][6:]
    assert whole["attention"][2] == "map"


def test_an_anatomy_that_is_not_known_is_said(report: Path, chain: Chain, tmp_path: Path) -> None:
    html = report.read_text()
    assert f"Anatomy known of 0 of {len(chain.dataset)} records; score with --source or --localizer" in html
    assert 'id="places-table"' not in html
    assert all(
        "is not known" in r["lies"] and "is not known" in r["predictions"]["oracle"]["lies"] for r in shown(report)
    )
    asked = ["report", str(chain.submissions[0]), "--dataset", str(chain.dataset.path), "--places"]
    done = CliRunner().invoke(app, [*asked, str(tmp_path / "p.csv"), "--out", str(tmp_path / "r.html")])
    assert isinstance(done.exception, MedGroundError)
    assert "--localizer" in str(done.exception)


@pytest.mark.parametrize("ending", ["csv", "json", "md", "tex"])
def test_the_shares_are_exported(chain: Chain, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"places.{ending}"
    asked = ["report", str(chain.submissions[1]), "--dataset", str(chain.dataset.path)]
    asked += ["--source", f"phantom={chain.root / 'source'}", "--places", str(out), "--out", str(tmp_path / "r.csv")]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    text = out.read_text()
    if ending == "json":
        rows = json.loads(text)["rows"]
        assert {row["row"] for row in rows} == {"evidence", "whole image", "oracle"}
        assert sum(r["value"] for r in rows if (r["row"], r["finding"]) == ("oracle", "all findings")) == pytest.approx(
            1
        )
    else:
        assert "oracle" in text
        assert ("left lower lung zone" if ending == "csv" else "left lower zone") in text


def test_methods_from_best_to_worst(report: Path, chain: Chain, tmp_path: Path) -> None:
    section = re.search(r'<section id="aggregated">(.*?)</section>', report.read_text(), re.S)[1]  # type: ignore[index]
    rows = re.findall(r"<tr.*?</tr>", section, re.S)[1:]
    assert len(rows) == len(chain.submissions)
    counts = [[int(n) for n in re.findall(r"</div>(\d+), ", row)] for row in rows]
    assert all(sum(mine) == len(chain.dataset) for mine in counts)
    pictures = re.findall(r'<img src="(.*?)" width="96" height="96" alt="(.*?)">', section)
    assert all(source.startswith("data:image/png;base64,") for source, _ in pictures)
    assert "Mean boxes of oracle over the records at 5 to 50 %" in {alt for _, alt in pictures}
    out = tmp_path / "a.csv"
    asked = ["report", *map(str, chain.submissions), "--dataset", str(chain.dataset.path), "--pictures", str(out)]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "r.csv")])
    assert done.exit_code == 0, done.output
    assert len(out.read_text().splitlines()) == 1 + 6 * len(chain.submissions)
