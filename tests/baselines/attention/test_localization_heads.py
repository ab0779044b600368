"""Localization heads: the two criteria by hand, the calibration, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from baselines.attention.localization_heads import localization_heads
from baselines.shared import localization_heads as heads
from baselines.shared.head_choice import chosen_heads
from baselines.shared.head_criteria import elbow, prompt_attention, spatial_entropy
from medground_bench.core.errors import MethodError
from medground_bench.lvlm.whitebox import trace_attention


@pytest.mark.parametrize(
    ("masses", "entropy"), [((1.0, 1.0), math.log(2)), ((1.0,), 0.0), ((3.0, 1.0), 0.5623351446)], ids=str
)
def test_entropy_of_components_by_hand(masses: tuple[float, ...], entropy: float) -> None:
    above = np.zeros((8, 8))
    for k, mass in enumerate(masses):
        above[4 * k, 4 * k] = above[4 * k + 1, 4 * k + 1] = mass / 2  # touching at a corner: one component
    # What exceeds the mean is to be ``above``: lower the rest until the map's mean is zero.
    attention = np.where(above > 0, above, -above.sum() / (above == 0).sum()) + 5
    assert spatial_entropy(attention) == pytest.approx(entropy, abs=1e-9)
    assert spatial_entropy(np.ones((8, 8))) == math.inf


def test_the_elbow_is_where_the_sums_bend() -> None:
    assert elbow(np.array([0.1, 0.0, 0.05, 0.15, 0.2, 1.0])) == 0.2
    assert elbow(np.array([2.0, 2.0, 2.0])) == 2.0


def episodes(lvlm: Any, count: int = 3) -> list[Any]:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (112, 112), dtype=np.uint8)) for _ in range(count)]
    return [lvlm.prepare(image, "Is there evidence of a nodule in the image?", "No") for image in images]


def test_the_calibrated_heads_are_summed(tiny_qwen: Any, tmp_path: Path) -> None:
    *others, mine = episodes(tiny_qwen)
    found = heads.calibrate(tiny_qwen, others, per_record=2)
    assert 2 <= sum(found.counts) <= 4
    assert found.counts == sorted(found.counts, reverse=True)
    path = found.save(tmp_path / "heads.json")
    assert heads.read_calibration(str(path)) == found
    options = {"calibration": str(path), "heads": 2, "sigma": 0.0}
    result = localization_heads.run(tiny_qwen, mine, localization_heads.make_parameters(options))
    trace, row = trace_attention(tiny_qwen, mine), mine.rows[:1]
    expected = sum(trace.weights(layer, row)[head, 0, list(mine.image_positions)] for layer, head in found.heads[:2])
    np.testing.assert_allclose(np.ravel(result.heatmap), expected, rtol=1e-5)
    assert result.extras == {"heads": [list(h) for h in found.heads[:2]]}


def test_heads_are_selected_by_both_criteria(monkeypatch: pytest.MonkeyPatch, tiny_qwen: Any) -> None:
    """Head 0 looks nowhere, head 1 in two places, head 2 at one, head 3 at one but hardly at the image."""
    maps = np.full((1, 4, 6, 6), 1e-6)
    maps[0, 1, 0, 0] = maps[0, 1, 4, 4] = 0.3
    maps[0, 2, 2, 2] = 0.6
    maps[0, 3, 5, 5] = 0.01
    monkeypatch.setattr(heads, "prompt_attention", lambda lvlm, episode: maps)
    assert elbow(maps.sum((2, 3)).ravel()) == pytest.approx(0.01, abs=1e-3)  # of four sums: 0, 0.01, 0.6, 0.6
    found = heads.calibrate(tiny_qwen, episodes(tiny_qwen, 1), per_record=2)
    assert set(found.heads) == {(0, 2), (0, 3)}
    assert heads.calibrate(tiny_qwen, episodes(tiny_qwen, 1), per_record=3).heads[-1] == (0, 3)


def test_heads_are_chosen_once_on_phantoms(monkeypatch: pytest.MonkeyPatch, tiny_qwen: Any) -> None:
    asked: list[Any] = []
    attention = prompt_attention

    def counted(lvlm: Any, episode: Any) -> Any:
        asked.append(episode)
        return attention(lvlm, episode)

    monkeypatch.setattr(heads, "prompt_attention", counted)
    found = chosen_heads(tiny_qwen, "phantom", 3)
    assert chosen_heads(tiny_qwen, "phantom", 3) is found
    assert len(asked) == 3  # and then none
    assert found == heads.calibrate(tiny_qwen, list(asked))
    assert len({episode.question for episode in asked}) > 1
    one = chosen_heads(tiny_qwen, "phantom", 1)
    assert (one.images, sum(one.counts)) == ([heads.image_key(asked[0])], min(10, len(one.heads)))


def test_heads_are_chosen_on_the_lvlms_records_of_a_dataset(
    monkeypatch: pytest.MonkeyPatch, tiny_qwen: Any, tmp_path: Path
) -> None:
    mine = episodes(tiny_qwen)
    records = [SimpleNamespace(model=tiny_qwen.key, **vars_of(episode)) for episode in mine]
    records.insert(1, SimpleNamespace(model="another", image=None, question="", response=""))
    monkeypatch.setattr("baselines.shared.head_choice.open_folder", lambda path, config: records)
    assert chosen_heads(tiny_qwen, str(tmp_path), 2) == heads.calibrate(tiny_qwen, mine[:2])
    monkeypatch.setattr("baselines.shared.head_choice.open_folder", lambda path, config: records[1:2])
    with pytest.raises(MethodError, match="cannot be chosen without records of it"):
        chosen_heads(tiny_qwen, str(tmp_path), 3)


def vars_of(episode: Any) -> dict[str, Any]:
    return {"image": episode.image, "question": episode.question, "response": episode.response}


def test_what_is_refused(tiny_qwen: Any, tmp_path: Path) -> None:
    other, mine = episodes(tiny_qwen, 2)

    def run(path: object, episode: Any = mine) -> Any:
        parameters = localization_heads.make_parameters({"calibration": str(path)})
        return localization_heads.run(tiny_qwen, episode, parameters)

    found = heads.calibrate(tiny_qwen, [other])
    with pytest.raises(MethodError, match="the record's image is one of the calibration's"):
        run(found.save(tmp_path / "own.json"), other)
    with pytest.raises(MethodError, match="the heads are those of somebody"):
        run(replace(found, lvlm="somebody").save(tmp_path / "other.json"))
    (tmp_path / "bad.json").write_text('{"kind": "scores"}')
    with pytest.raises(MethodError, match="not a calibration"):
        run(tmp_path / "bad.json")
    with pytest.raises(MethodError, match="cannot be chosen without records"):
        heads.calibrate(tiny_qwen, [])
