"""The picture of the concepts and its command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.draw import COLOURS, draw_concepts
from medground_bench.cli import app
from medground_bench.core.anatomy import CONCEPTS


def test_every_concept_has_its_colour():
    assert tuple(COLOURS) == CONCEPTS
    assert len(set(COLOURS.values())) == len(CONCEPTS)


def test_boxes_are_drawn_where_they_are(small_pool: ReferencePool, chest: np.ndarray):
    transfer = AnatomyLocalizer(small_pool).localise(chest)
    picture = np.asarray(draw_concepts(Image.fromarray(chest), transfer.concepts))
    assert picture.shape == (896, 896 + 250, 3)
    for concept in ("left costophrenic angle", "right clavicle", "left lung"):
        rows, columns = np.nonzero((picture[:, :896] == COLOURS[concept]).all(-1))
        x1, y1, x2, y2 = (v * 896 / 256 for v in transfer.boxes[concept])
        assert (columns.min(), columns.max() + 1) == pytest.approx((x1, x2), abs=2)
        assert (rows.min(), rows.max() + 1) == pytest.approx((y1, y2), abs=2)


def test_command(tmp_path: Path, small_pool: ReferencePool, chest: np.ndarray):
    Image.fromarray(chest).save(tmp_path / "chest.png")
    pool = small_pool.to_folder(tmp_path / "pool")
    out = tmp_path / "drawn.png"
    result = CliRunner().invoke(app, ["concepts", str(tmp_path / "chest.png"), "--pool", str(pool), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "cardiac silhouette" in result.output
    assert "confidence: 0.9" in result.output
    assert "look at the picture" not in result.output
    with Image.open(out) as drawn:
        assert drawn.size == (896 + 250, 896)
    Image.fromarray(chest[:, :128]).save(tmp_path / "chest.png")
    result = CliRunner().invoke(app, ["concepts", str(tmp_path / "chest.png"), "--pool", str(pool), "--out", str(out)])
    assert "below 0.5: look at the picture" in result.output


def test_command_says_what_is_wrong(tmp_path: Path, chest: np.ndarray):
    from medground_bench.core.errors import AtlasError, ImageError

    Image.fromarray(chest).save(tmp_path / "chest.png")
    result = CliRunner().invoke(app, ["concepts", str(tmp_path / "none.png")])
    assert isinstance(result.exception, ImageError)
    result = CliRunner().invoke(app, ["concepts", str(tmp_path / "chest.png"), "--pool", str(tmp_path)])
    assert isinstance(result.exception, AtlasError)
    assert not list(tmp_path.glob("*_concepts.png"))
