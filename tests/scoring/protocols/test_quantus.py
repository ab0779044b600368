"""Against quantus 0.6.0 where its definitions are ours, by stored values (``goldens/make_quantus.py`` made them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.imaging import Letterbox
from medground_bench.scoring.heatmaps import score_heatmap
from medground_bench.scoring.protocols.maps import trapezoid
from medground_bench.scoring.protocols.noise import feature_precision
from medground_bench.scoring.protocols.randomisation import entropy
from medground_bench.scoring.protocols.road import impute
from tests.baselines.kit import WEIGHTS, quadrants
from tests.scoring.protocols.kit import run, world

GAMES = {"additive": lambda z: z @ WEIGHTS, "and": lambda z: z[0] * z[1], "or": lambda z: z[:2].max()}


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((Path(__file__).parent / "goldens" / "quantus.json").read_text())


@pytest.mark.parametrize("game", GAMES)
def test_deletion_is_pixel_flipping(golden: Any, game: str, tmp_path: Path) -> None:
    maps, curves = golden["maps"], golden["curves"][game]
    board = world(tmp_path, lambda frame, question: float(GAMES[game](quadrants(frame) / 255)), n=len(maps))
    given = iter(maps)
    path = board.submit("given", heat=lambda r: np.asarray(next(given)))
    options = {"fill": "black", "regions": "tiles:2x2", "steps": 4, "randoms": 1}
    result = run(board, path, "deletion", options)
    expected = [trapezoid(np.array([1.0, *curve]), np.linspace(0, 1, 5)) for curve in curves]
    assert len(set(expected)) > 2
    assert result.values["deletion"].tolist() == pytest.approx(expected, abs=1e-4)


def test_localisation(golden: Any) -> None:
    for k, (heat, box) in enumerate(zip(golden["heat"], golden["boxes"], strict=True)):
        values = np.asarray(heat)
        scores = score_heatmap(values, Letterbox.identity(*values.shape), [box], tolerance=0.0)
        assert scores.pointing == golden["pointing"][k]
        assert scores.energy == pytest.approx(golden["mass"][k])
        mask = np.zeros(values.shape, bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        assert feature_precision(values, mask) == pytest.approx(golden["top"][k])
        assert entropy(values) == pytest.approx(golden["entropy"][k])
    assert 0 < np.mean(golden["pointing"]) < 1


def test_road_imputes_the_same(golden: Any) -> None:
    image = np.asarray(golden["image"])
    for removed, imputed in zip(golden["removed"], golden["imputed"], strict=True):
        mask = np.zeros(image.size, bool)
        mask[removed] = True
        assert np.allclose(impute(image, mask.reshape(image.shape)), imputed)
