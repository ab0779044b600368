"""Located concepts as zones, in the transfer, the method and the command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.draw import draw_concepts
from medfocus.method import MultiAtlasParameters, make_medfocus
from medfocus.result import FRAME
from medfocus.vocabulary import in_vocabulary
from medground_bench.cli import app
from medground_bench.core.anatomy import ZONES
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox


@pytest.fixture(scope="module")
def pool_folder(small_pool: ReferencePool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_pool.to_folder(tmp_path_factory.mktemp("pools") / "small")


def test_boxes_and_pixels_of_zones(small_pool: ReferencePool, chest: np.ndarray) -> None:
    located = AnatomyLocalizer(small_pool).localise(chest)
    assert in_vocabulary(located, "concepts", 256, 256) is located
    zones = in_vocabulary(located, "zones", 256, 256)
    assert len(zones.concepts) >= 18
    assert set(zones.concepts) <= set(ZONES)
    lung = located.concepts["left lung"].mask
    thirds = [zones.concepts[f"left {z} lung zone"].mask for z in ("upper", "mid", "lower")]
    assert np.logical_or.reduce(thirds).sum() > 0.97 * lung.sum()
    assert not (np.logical_or.reduce(thirds) & ~lung).any()
    for found in zones.concepts.values():
        assert found.mask.shape == (FRAME, FRAME)
        x1, y1, x2, y2 = found.box
        assert 0 <= x1 < x2 <= 256
        assert 0 <= y1 < y2 <= 256
    picture = draw_concepts(Image.fromarray(chest), zones.concepts)
    assert picture.height == 896
    with pytest.raises(MethodError, match="vocabulary"):
        in_vocabulary(located, "organs", 256, 256)


def test_medfocus_intervenes_on_zones(pool_folder: Path, chest: np.ndarray) -> None:
    class Nothing:
        """Tokens that no image changes, but for the darkest."""

        def log_probs(self, episode: Any, images: Any) -> np.ndarray:
            return np.array([[np.asarray(image, float).mean()] for image in images])

    image = Image.fromarray(chest)
    letterbox = Letterbox.fit(*image.size)
    frame = letterbox.apply(image)
    episode: Any = SimpleNamespace(image=image, frame=frame, letterbox=letterbox, frame_array=np.asarray(frame))
    parameters = MultiAtlasParameters(pool=str(pool_folder), cache="none", vocabulary="zones")
    result = make_medfocus(parameters).attribute(Nothing(), episode)  # type: ignore[arg-type]
    assert "left mid lung zone" in result.concept_scores
    assert "left lung" not in result.concept_scores
    assert result.concept is not None
    with pytest.raises(MethodError, match="vocabulary"):
        MultiAtlasParameters(vocabulary="organs")


def test_the_command_draws_zones(pool_folder: Path, chest: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(chest).save(tmp_path / "chest.png")
    words = ["concepts", str(tmp_path / "chest.png"), "--pool", str(pool_folder), "--vocabulary", "zones"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out.png")])
    assert result.exit_code == 0, result.output
    assert "left mid lung zone" in result.output
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.height >= 60 + 24 * 18
