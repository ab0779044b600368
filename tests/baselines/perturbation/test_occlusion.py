"""Occlusion: known answers with a scorer that sees one place, and Captum as oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.perturbation.occlusion import OcclusionParameters, occlusion
from medground_bench.attribution.regions import tile_labels
from medground_bench.core.errors import MethodError
from tests.baselines.doubles import Scorer, cell_of, plain_episode


def test_occlusion_is_the_drop_of_the_score() -> None:
    episode = plain_episode()
    lvlm: Any = Scorer(lambda image: image.sum() / 1000)
    values = occlusion.function(lvlm, episode, OcclusionParameters())
    expected = [[cell_of(episode.frame_array.astype(float), r, c).sum() / 1000 for c in range(8)] for r in range(8)]
    np.testing.assert_allclose(values, expected)
    assert lvlm.images == 65


def test_occlusion_keeps_the_sign_of_evidence_against() -> None:
    lvlm: Any = Scorer(lambda image: -cell_of(image, 2, 3).mean())
    values = occlusion.function(lvlm, plain_episode(), OcclusionParameters())
    assert values[2, 3] < 0
    assert np.count_nonzero(values) == 1


def test_occlusion_of_a_colour_frame_and_another_fill() -> None:
    from dataclasses import replace

    from PIL import Image

    episode = plain_episode()
    colour = np.stack([episode.frame_array, np.zeros((224, 224), np.uint8), np.zeros((224, 224), np.uint8)], axis=-1)
    episode = replace(episode, frame=Image.fromarray(colour))
    lvlm: Any = Scorer(lambda image: cell_of(image, 0, 0)[..., 1].mean())
    values = occlusion.function(lvlm, episode, OcclusionParameters(fill=128))
    assert values[0, 0] == pytest.approx(-128)


@pytest.mark.parametrize("size", [(224, 224), (640, 448)])
@pytest.mark.parametrize("cell", [(2, 3), (5, 6), (3, 4)])
def test_occlusion_finds_the_planted_tile(size: tuple[int, int], cell: tuple[int, int]) -> None:
    episode = plain_episode(*size)
    lvlm: Any = Scorer(lambda image: cell_of(image, *cell).mean())
    attribution = occlusion.run(lvlm, episode)
    assert attribution.heatmap is not None
    assert np.unravel_index(attribution.heatmap.argmax(), (8, 8)) == cell
    row, col = cell
    centre = episode.letterbox.to_native([(col * 28, row * 28, col * 28 + 28, row * 28 + 28)])[0]
    x, y = (centre[0] + centre[2]) / 2, (centre[1] + centre[3]) / 2
    x1, y1, x2, y2 = attribution.boxes[0]
    assert x1 <= x < x2
    assert y1 <= y < y2


@pytest.mark.parametrize("score", [-3.7, 0.0, 1 / 3])
def test_a_constant_scorer_names_no_evidence(score: float) -> None:
    episode = plain_episode(300, 200)
    lvlm: Any = Scorer(lambda image: score)
    attribution = occlusion.run(lvlm, episode)
    assert attribution.degenerate
    assert attribution.boxes == [(0.0, 0.0, 300.0, 200.0)]


@pytest.mark.parametrize("bad", [{"rows": 0}, {"fill": 300}])
def test_impossible_parameters_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(MethodError, match="method"):
        OcclusionParameters(**bad)


@pytest.mark.parametrize("family", ["tiny_qwen", "tiny_gemma"])
def test_occlusion_equals_captum(family: str, request: pytest.FixtureRequest) -> None:
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.attr")
    from PIL import Image

    lvlm = request.getfixturevalue(family)
    pixels = np.random.default_rng(1).integers(0, 256, (200, 300), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", "Yes")
    frame = torch.from_numpy(episode.frame_array.astype(np.float32))[None]

    def score(batch: Any) -> Any:
        return torch.from_numpy(lvlm.log_probs(episode, batch.numpy().astype(np.uint8)).astype(np.float64).sum(axis=1))

    labels = tile_labels(224, 224, 4, 4)
    oracle = captum.FeatureAblation(score).attribute(
        frame, baselines=0, feature_mask=torch.from_numpy(labels)[None], perturbations_per_eval=4
    )[0]
    values = occlusion.function(lvlm, episode, OcclusionParameters(rows=4, cols=4))
    np.testing.assert_allclose(values, oracle.numpy()[::56, ::56], atol=2e-5)
