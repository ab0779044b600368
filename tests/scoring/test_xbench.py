"""Recognition and localisation of two-tower models, against answers counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from medground_bench.attribution.method import as_method
from medground_bench.cli import app
from medground_bench.core.errors import ScoringError
from medground_bench.imaging.overlap import score_boxes
from medground_bench.imaging.read import read_image
from medground_bench.lvlm.testing import save_parts, tiny_two_tower_parts
from medground_bench.lvlm.two_tower import TwoTower
from medground_bench.scoring.xbench import auroc, xbench
from medground_bench.sources import open_source
from medground_bench.sources.phantom.writers import write_source

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("xbench") / "set"
    return Path(write_source("phantom", out, 8, seed=5, size=224).root)


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 5, 12), rng.integers(0, 5, 9)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert auroc(positive, negative) == pytest.approx(np.mean(pairs))
    assert auroc([2.0], [1.0, 0.0]) == 1.0
    assert np.isnan(auroc([1.0], []))


class Brightness(TwoTower):
    """Takes an image for one with the finding the brighter it is, whatever the finding."""

    def log_probs(self, episode: Any, images: Any, **_: Any) -> np.ndarray:
        return np.array([[float(np.asarray(image, float).mean())] for image in images], np.float32)


def test_the_table_is_that_of_a_plain_loop(folder: Path) -> None:
    source = open_source("phantom", folder)

    def left_half(lvlm: Any, episode: Any) -> np.ndarray:
        heat = np.zeros(episode.frame_array.shape[:2])
        heat[:, :100] = 1.0
        heat[50:60, 20:30] = 2.0
        return heat

    model = Brightness(*tiny_two_tower_parts("clip"))
    rows = xbench({"bright": lambda: model}, source, [as_method(left_half)])
    cases = [c for c in source if c.boxes]
    findings = sorted({c.attribute for c in cases})
    images = {c.image_path: float(np.asarray(read_image(c.image_path).convert("RGB"), float).mean()) for c in cases}
    by_name = {row.group: row for row in rows}
    whole = by_name["all"]
    assert next(row.group for row in rows) == "all"
    assert whole.candidates == len(cases)
    areas, ious = [], []
    for finding in findings:
        have = {c.image_path for c in cases if c.attribute == finding}
        pairs = [(images[p] > images[n]) + 0.5 * (images[p] == images[n]) for p in have for n in set(images) - have]
        row = by_name[finding]
        assert row.auroc == pytest.approx(np.mean(pairs)) if pairs else np.isnan(row.auroc)
        # The protocol keeps the hottest tenth: the 10 x 10 pixels, in native pixels the same (the image is the frame).
        here = [c for c in cases if c.attribute == finding]
        mine = [float(score_boxes([r], [list(c.boxes)]).iou[0]) for c in here for r in [[(20, 50, 30, 60)]]]
        assert row.candidates == len(here)
        if np.isfinite(row.auroc):
            areas.append(row.auroc)
            ious.append(row.iou)
        assert row.iou >= 0
        assert len(mine) == row.candidates
    assert whole.auroc == pytest.approx(np.mean(areas))
    if len(areas) >= 4 and np.ptp(ious) > 0:
        assert whole.correlation == pytest.approx(spearmanr(areas, ious).statistic)
    strata = [row for row in rows if row.group.endswith("evidence")]
    assert sum(row.candidates for row in strata) == len(cases)
    assert whole.iou == pytest.approx(sum(r.iou * r.candidates for r in strata) / len(cases))


def test_a_map_of_the_evidence_localises(folder: Path) -> None:
    source = open_source("phantom", folder)
    boxes = {}
    for c in source:
        boxes.setdefault(c.attribute, []).append(c)

    def oracle(lvlm: Any, episode: Any) -> np.ndarray:
        heat = np.zeros(episode.frame_array.shape[:2])
        for c in boxes[episode.question]:
            if np.array_equal(np.asarray(read_image(c.image_path)), np.asarray(episode.image)):
                for x1, y1, x2, y2 in c.boxes:
                    heat[round(y1) : round(y2), round(x1) : round(x2)] = 1.0
        return heat

    model = Brightness(*tiny_two_tower_parts("clip"))
    rows = xbench({"m": lambda: model}, source, [as_method(oracle)], limit=3)
    assert rows[0].pointing == 1.0
    assert rows[0].iou > 0.9


def test_lvlms_and_empty_sources_are_refused(folder: Path, tiny_qwen: Lvlm) -> None:
    source = open_source("phantom", folder)
    with pytest.raises(ScoringError, match="no two towers"):
        xbench({"q": lambda: tiny_qwen}, source, [])
    with pytest.raises(ScoringError, match="no image of the source has a box"):
        xbench({}, [], [])  # type: ignore[arg-type]


def test_the_command_prints_and_writes_the_table(folder: Path, tmp_path: Path) -> None:
    model = save_parts(*tiny_two_tower_parts("siglip"), tmp_path / "tiny")
    out = tmp_path / "rows.csv"
    done = CliRunner().invoke(
        app, ["xbench", "--lvlm", str(model), "--source", f"phantom={folder}", "--limit", "3", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "AUROC" in done.output
    lines = out.read_text().splitlines()
    assert lines[0] == "model,method,group,candidates,pointing,iou,auroc,correlation"
    assert lines[1].startswith("tiny,similarity_map,all,")
