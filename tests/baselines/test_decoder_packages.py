"""Against flashtrace and legrad on a decoder, by stored values (``goldens/make_decoder.py`` made them)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from baselines.decomposition.ifr import hops
from medground_bench.attribution.method import get_method
from medground_bench.lvlm.whitebox import trace_attention
from tests.baselines.drawn import REASONING, VERDICT, prepared


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((Path(__file__).parent / "goldens" / "decoder.json").read_text())


def test_information_flow_is_that_of_flashtrace(golden: Any) -> None:
    """With its places, which are the rows; a span that is the answer's alone is ``ifr``."""
    lvlm, episode = prepared("sdpa", REASONING)
    trace, rows, image = trace_attention(lvlm, episode), list(episode.rows), list(episode.image_positions)
    thinking = rows[:VERDICT]
    for count in (0, 1, 2):
        _, total, _ = hops(trace, rows[VERDICT:], thinking, thinking, count)
        np.testing.assert_allclose(total[image], golden["ifr"][str(count)], rtol=1e-4)
    assert golden["ifr"]["1"] != golden["ifr"]["2"]


def test_legrad_is_that_of_its_package(golden: Any) -> None:
    lvlm, episode = prepared("sdpa", ".", (140, 140))
    heat = np.ravel(get_method("legrad").run(lvlm, episode).heatmap)
    expected = np.array(golden["legrad"])
    np.testing.assert_allclose(heat / heat.sum(), expected / expected.sum(), atol=1e-5)
