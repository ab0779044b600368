"""The funnel's counts and plot."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from medground_bench.causal.funnel import funnel_svg, read_funnel, write_plot
from medground_bench.causal.verdicts import ANSWERS, read_verdicts
from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import Journal

GATES = [None, "foreground", "correct", "correct", "background", "background_normal", "error", "error"]


def line(index: int, gate: str | None, **more: object) -> dict:
    verdict = "kept" if gate is None else "error" if gate == "error" else "rejected"
    return {
        "model": "m<1>",
        "mode": "direct",
        "dataset": "phantom",
        "image_id": str(index),
        "attribute": ["nodule", "edema & more"][index % 2],
        "index": index,
        "gate": gate,
        "verdict": verdict,
        "answers": dict(zip(ANSWERS, ("Yes", "No", "Yes", "Yes"), strict=True)),
        "flags": [],
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Journal(tmp_path / "v", "verdicts", 0) as journal:
        for index, gate in enumerate(GATES):
            journal.append(line(index, gate))
    with Journal(tmp_path / "v", "verdicts", 1) as journal:
        journal.append(line(8, "correct", verdict="undecided", flags=["undecided"]))
        journal.append(line(9, "foreground", flags=["seam:foreground"]))
        journal.append(line(10, "error", verdict="skipped"))
        journal.append(line(6, "foreground"))  # a later run got past the error of 6
        journal.append(line(11, None, model="b", dataset="nih_cxr14"))
    return tmp_path / "v"


def test_counts_at_each_gate(folder: Path) -> None:
    other, row = read_funnel([folder])
    assert other.group == ("b", "direct", "nih_cxr14")
    assert other.steps() == [(n, 1) for n in ("candidates", "correct", "foreground", "background", "background_normal")]
    assert row.group == ("m<1>", "direct", "phantom")
    # 9 judged: 3 fell at "correct", 3 at "foreground" (one after an error), one each at the background gates, 1 kept.
    assert [n for _, n in row.steps()] == [9, 6, 3, 2, 1]
    assert (row.kept, row.undecided, row.flagged, row.errors, row.skipped) == (1, 1, 1, 1, 1)


def test_groups_add_up(folder: Path) -> None:
    for by in ("lvlm", "source", "attribute"):
        rows = read_funnel([folder], by)
        assert sum(r.candidates for r in rows) == 10
        assert sum(r.kept for r in rows) == 2
    assert {r.group[-1] for r in read_funnel([folder], "attribute")} == {"nodule", "edema & more"}
    with pytest.raises(MedGroundError, match="cannot group"):
        read_funnel([folder], "colour")


def test_an_error_is_replaced_by_a_later_verdict(folder: Path) -> None:
    gates = {v.image_id: v.gate for v in read_verdicts(folder)}
    assert gates["6"] == "foreground"
    assert gates["7"] == "error"
    assert len(read_verdicts(folder)) == 12


def test_the_same_work_in_two_folders_is_refused(folder: Path, tmp_path: Path) -> None:
    with Journal(tmp_path / "w", "verdicts") as journal:
        journal.append(line(0, None))
    with pytest.raises(MedGroundError, match="judged in two folders"):
        read_funnel([folder, tmp_path / "w"])


def test_what_is_no_folder_of_verdicts(tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match="no verdicts here"):
        read_funnel([tmp_path])
    (tmp_path / "verdicts-00000.jsonl").write_text(json.dumps({"gate": None}) + "\n")
    with pytest.raises(MedGroundError, match="not a verdict"):
        read_funnel([tmp_path])


def test_the_plot_is_an_svg_with_a_bar_per_gate(folder: Path, tmp_path: Path) -> None:
    rows = read_funnel([folder])
    root = ET.fromstring(funnel_svg(rows))
    bars = [float(e.get("width", "0")) for e in root.iter("{http://www.w3.org/2000/svg}rect") if len(e)]
    assert bars[:5] == [520.0] * 5
    assert bars[5:] == pytest.approx([520 * n / 9 for n in (9, 6, 3, 2, 1)], abs=0.1)
    assert "m<1>" in {e.text for e in root.iter("{http://www.w3.org/2000/svg}text")}
    write_plot(rows, tmp_path / "funnel.svg")
    assert (tmp_path / "funnel.svg").read_text() == funnel_svg(rows)
    with pytest.raises(MedGroundError, match=r"\.svg"):
        write_plot(rows, tmp_path / "funnel.pdf")


def test_no_candidates_are_no_division_by_zero(tmp_path: Path) -> None:
    with Journal(tmp_path, "verdicts") as journal:
        journal.append(line(0, "error"))
    (row,) = read_funnel([tmp_path])
    assert row.steps()[0] == ("candidates", 0)
    ET.fromstring(funnel_svg([row]))
