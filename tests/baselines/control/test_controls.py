"""Maps without a model: each has an answer that can be worked out, and none asks the LVLM anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from baselines.control.population_prior import evidence_map, measured
from medground_bench.attribution.method import get_method
from medground_bench.core.errors import MethodError
from medground_bench.core.schema import question
from medground_bench.sources import distributions
from medground_bench.sources.distributions import BoxDistribution
from medground_bench.sources.phantom import sample_phantom
from tests.baselines.doubles import plain_episode

CONTROLS = ("random_map", "centre_prior", "sobel", "intensity", "lung_mask_prior", "population_prior")
NOBODY: Any = None
"""In the place of an LVLM: a control that asked it would fail."""


def of_pixels(pixels: np.ndarray, side: int | None = 224) -> Any:
    from medground_bench.imaging import Letterbox

    height, width = pixels.shape
    box = Letterbox.identity(width, height) if side is None else Letterbox.fit(width, height, side)
    image = Image.fromarray(pixels)
    return replace(plain_episode(), image=image, letterbox=box, frame=box.apply(image).convert("RGB"))


def heat(name: str, episode: Any, **options: Any) -> np.ndarray:
    found = get_method(name)
    out = found.run(NOBODY, episode, found.make_parameters(options)).heatmap
    assert out is not None
    return np.asarray(out, float)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_says_so_and_keeps_off_the_bars(name: str) -> None:
    assert get_method(name).family == "control"
    pixels = sample_phantom(3, size=256).image[:192]
    episode = of_pixels(np.ascontiguousarray(pixels))
    x1, y1, x2, y2 = episode.letterbox.content
    assert (x2 - x1, y2 - y1) == (224, 168)
    values = heat(name, episode)
    assert values.shape == (224, 224)
    bars = np.concatenate([values[:y1], values[y2:]])
    assert (bars == values.min()).all()
    assert values[y1:y2].std() > 0


def test_random_maps_are_the_records_own() -> None:
    episode = plain_episode(200, 160)
    first = heat("random_map", episode)
    np.testing.assert_array_equal(first, heat("random_map", episode))
    others = (
        heat("random_map", plain_episode(200, 160, seed=1)),
        heat("random_map", replace(episode, question="Is there evidence of a nodule in the image?")),
        heat("random_map", episode, seed=1),
    )
    x1, y1, x2, y2 = episode.letterbox.content
    for other in others:
        assert abs(np.corrcoef(first[y1:y2, x1:x2].ravel(), other[y1:y2, x1:x2].ravel())[0, 1]) < 0.5
    white = heat("random_map", episode, sigma=0.0)[y1:y2, x1:x2]
    assert white.mean() == pytest.approx(0, abs=0.03)
    assert white.std() == pytest.approx(1, abs=0.03)


def test_the_centre_is_that_of_the_image_not_of_the_frame() -> None:
    values = heat("centre_prior", plain_episode(100, 50, side=None), sigma=0.25)
    assert values.shape == (50, 100)
    np.testing.assert_allclose(values, values[::-1, ::-1])
    assert values[24, 49] == values.max()
    # A quarter of the width and a quarter of the height from the centre: one standard deviation each.
    x, y = 74.5 / 100 - 0.5, 37.5 / 50 - 0.5
    assert values[37, 74] == pytest.approx(np.exp(-(x**2 + y**2) / 2 / 0.25**2))


def test_edges_of_the_image_and_not_of_the_letterbox() -> None:
    pixels = np.full((100, 200), 50, np.uint8)
    pixels[:, 120:] = 150
    values = heat("sobel", of_pixels(pixels, side=None))
    assert set(np.flatnonzero(values.any(axis=0)).tolist()) == {119, 120}
    assert values[50, 119] == pytest.approx(4 * 100)  # the kernel's weights 1, 2, 1 on a step of 100
    flat = get_method("sobel").run(NOBODY, of_pixels(np.full((100, 200), 50, np.uint8)))
    assert flat.degenerate


def test_bright_is_important() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 90), dtype=np.uint8)
    np.testing.assert_array_equal(heat("intensity", of_pixels(pixels, side=None)), pixels)


def test_lungs_of_a_phantom_are_found() -> None:
    phantom = sample_phantom(5, size=256, findings=[])
    values = heat("lung_mask_prior", of_pixels(phantom.image, side=None)) > 0.5
    lungs = phantom.masks["right lung"] | phantom.masks["left lung"]
    assert (values & lungs).sum() / (values | lungs).sum() > 0.7


def test_an_unknown_localiser_is_an_error() -> None:
    with pytest.raises(MethodError, match="unknown localiser 'nobody'"):
        heat("lung_mask_prior", plain_episode(), localizer="nobody")


def test_no_lung_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    from medground_bench.sources.planted.anatomy import Localization

    module = import_module("baselines.control.lung_mask_prior")
    monkeypatch.setattr(module, "_localizer", lambda name: lambda image: Localization({}, 0.0))
    assert get_method("lung_mask_prior").run(NOBODY, plain_episode()).degenerate


def test_the_population_prior_is_the_mean_of_drawn_boxes() -> None:
    """Monte Carlo: boxes drawn as the table describes them, rasterised and averaged."""
    row = measured(question("Effusion", "direct"), "nih_cxr14")
    assert row.finding == "Effusion"
    height, width = 40, 60
    rng = np.random.default_rng(0)
    n = 20_000
    left = rng.random(n) < row.right
    distance = rng.normal(*row.offset, n)
    x = np.where(left, 0.5 - distance, 0.5 + distance)
    y = rng.normal(*row.y, n)
    area, aspect = rng.choice(row.area, n), rng.choice(row.aspect, n)
    wide = np.sqrt(area * aspect * height / width)  # of the image's width; aspect is in pixels
    px, py = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    covers_x = (np.abs(px - x[:, None]) < wide[:, None] / 2).astype(np.float32)
    covers_y = (np.abs(py - y[:, None]) < (area / wide)[:, None] / 2).astype(np.float32)
    np.testing.assert_allclose(evidence_map(row, height, width), covers_y.T @ covers_x / n, atol=0.015)


def test_a_box_of_no_spread_covers_its_own_pixels() -> None:
    row = BoxDistribution("x", "y", 1, 1, (0.25,), (0.25,), (1.0,), (0.25, 0.0), (0.5, 0.0), (0.25, 0.0), 1.0)
    expected = np.zeros((40, 40))
    expected[10:30, 0:20] = 1
    np.testing.assert_array_equal(evidence_map(row, 40, 40), expected)


@pytest.mark.parametrize(
    ("attribute", "source", "finding"),
    [
        ("Cardiomegaly", "nih_cxr14", "Cardiomegaly"),
        ("pleural effusion", "", "Effusion"),
        ("multiple nodules", "", "Nodule"),
        ("massive heart", "nih_cxr14", "*"),
        ("cyst", "", "*"),
    ],
)
def test_the_question_names_the_finding(attribute: str, source: str, finding: str) -> None:
    for mode in ("direct", "reason"):
        assert measured(question(attribute, mode), source).finding == finding


def test_the_row_is_recorded_and_sources_are_checked() -> None:
    episode = replace(plain_episode(), question=question("Mass", "direct"))
    assert get_method("population_prior").run(NOBODY, episode).extras == {"distribution": "nih_cxr14/Mass"}
    assert {row.source for row in distributions.DISTRIBUTIONS} == {"nih_cxr14", "chestx_det", "rsna"}
    with pytest.raises(MethodError, match="source must be empty or one of"):
        heat("population_prior", episode, source="mimic")
