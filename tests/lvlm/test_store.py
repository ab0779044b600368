"""Scores that are kept: the same numbers, fewer passes, no mixture of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution.generate import generate
from medground_bench.attribution.method import get_method
from medground_bench.core.errors import MedGroundError
from medground_bench.lvlm.passes import Passes, count_passes
from medground_bench.lvlm.store import Store, check_store, remembered
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.submission import open_submission
from tests.scoring.protocols.kit import SIDE, World, additive, quadrant_map, world

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm


def test_a_variant_is_scored_once_and_counts_for_who_asks(tiny_qwen: Lvlm) -> None:
    rng = np.random.default_rng(0)
    episode = tiny_qwen.prepare(Image.fromarray(rng.integers(0, 255, (60, 40), np.uint8)), "Is it there?", "Yes")
    frames = rng.integers(0, 255, (3, 224, 224), np.uint8)
    plain = tiny_qwen.log_probs(episode, frames)
    store, asked = Store(None, "record"), Passes()
    with count_passes(tiny_qwen) as made, remembered(tiny_qwen, store, asked):
        first = tiny_qwen.log_probs(episode, frames[[0, 1, 0]])
        second = tiny_qwen.log_probs(episode, frames)
        none = tiny_qwen.log_probs(episode, frames[:0])
    assert (made.forward, asked.forward) == (3, 3)  # six were asked for
    assert none.shape == (0, plain.shape[1])
    assert first.dtype == second.dtype == plain.dtype
    np.testing.assert_allclose(second, plain, atol=1e-5)
    np.testing.assert_array_equal(first, second[[0, 1, 0]])
    other = tiny_qwen.prepare(episode.image, "Is it there?", "No")
    with remembered(tiny_qwen, store, asked):
        assert not np.allclose(tiny_qwen.log_probs(other, frames)[:, 0], plain[:, 0])
    with count_passes(tiny_qwen) as after:
        tiny_qwen.log_probs(episode, frames)
    assert after.forward == 3  # nothing is remembered any more


def test_methods_and_protocols_share_passes(tmp_path: Path) -> None:
    methods = [get_method("occlusion"), get_method("occlusion").named("again"), get_method("rise")]
    settings = {"occlusion": {"rows": 2, "cols": 2}, "again": {"rows": 2, "cols": 2}, "rise": {"masks": 8}}
    boards: dict[str, tuple[World, int, int]] = {}
    for name in ("alone", "shared"):
        board = world(tmp_path / name, additive)
        cache = board.root / "scores" if name == "shared" else None
        report = generate(
            board.folder, board.lvlm, methods, board.root / "made", settings=settings, side=SIDE, cache=cache
        )
        assert not report.errors
        generated = board.lvlm.passes
        options = {"deletion": {"fill": "black", "regions": "tiles:2x2", "steps": 4, "randoms": 1}}
        evaluated = run_protocols(
            list(report.submissions.values()),
            board.folder,
            ["deletion"],
            board.root / "out",
            lvlm=board.lvlm,
            settings=options,
            resamples=100,
            cache=cache,
        )
        assert not evaluated.errors
        boards[name] = board, generated, board.lvlm.passes - generated
    for name in ("occlusion", "again", "rise"):
        alone, shared = (
            [p.boxes for p in open_submission(b.root / "made/tiny_a/direct" / name).predictions().values()]
            for b, _, _ in boards.values()
        )
        assert alone == shared
    # Of each of the 8 records the second occlusion (image and 4 tiles) is free, and the image for RISE where it asks.
    (_, alone_passes, alone_deletion), (_, shared_passes, shared_deletion) = boards["alone"], boards["shared"]
    assert alone_passes - shared_passes >= 8 * 5
    assert shared_deletion < alone_deletion


def test_scores_of_another_model_are_refused(tmp_path: Path) -> None:
    board = world(tmp_path, additive)
    path = board.submit("right", heat=lambda r: quadrant_map(np.ones(4)))
    check_store(tmp_path / "scores", board.lvlm)
    check_store(tmp_path / "scores", board.lvlm)
    board.lvlm.revision = "game-2"
    with pytest.raises(MedGroundError, match="game-1"):
        run_protocols([path], board.folder, ["deletion"], tmp_path / "out", lvlm=board.lvlm, cache=tmp_path / "scores")


DAMAGED = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "empty": lambda path: path.write_text(""),
    "no JSON of ours": lambda path: path.write_text("{}"),
    "of another record": lambda path: path.write_text('{"record": "other", "scores": {}, "answers": {}}'),
    "not text": lambda path: path.write_bytes(b"\xff\x00\xfe"),
    "half right": lambda path: path.write_text('{"record": "record", "scores": {"0": [2]}, "answers": {"0": 1}}'),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_file_is_named_and_written_anew(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path, "record")
    store.scores["0"] = [1.0]
    store.save("record")
    (path,) = tmp_path.iterdir()
    assert Store(tmp_path, "record").scores == {"0": [1.0]}
    assert not caplog.messages
    DAMAGED[how](path)
    store = Store(tmp_path, "record")
    assert not store.scores
    assert not store.answers
    (line,) = caplog.messages
    assert line.startswith(f"{path}: damaged")
    store.scores["0"] = [1.0]
    store.save("record")
    assert Store(tmp_path, "record").scores == {"0": [1.0]}
    assert len(caplog.messages) == 1


def test_a_damaged_file_costs_its_record_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``generate`` and ``evaluate`` go on, with the same maps and for the passes of one record more."""
    board, cache = world(tmp_path, additive), tmp_path / "scores"
    settings = {"occlusion": {"rows": 2, "cols": 2}}

    def made(folder: str) -> tuple[Path, int]:
        before = board.lvlm.passes
        report = generate(
            board.folder, board.lvlm, ["occlusion"], tmp_path / folder, settings=settings, side=SIDE, cache=cache
        )
        assert not report.errors
        assert report.computed == 8
        return report.submissions["occlusion"], board.lvlm.passes - before

    first, all_passes = made("first")
    _, none = made("second")
    damaged = min(path for path in cache.glob("*.json") if path.name != "lvlm.json")
    damaged.write_text(damaged.read_text()[:40])
    third, one = made("third")
    assert (all_passes, none, one) == (8 * 5, 0, 5)
    assert [str(damaged) in line for line in caplog.messages] == [True]
    assert open_submission(first).predictions() == open_submission(third).predictions()
    damaged.write_text(damaged.read_text()[:40])
    options = {"deletion": {"fill": "black", "regions": "tiles:2x2", "steps": 4, "randoms": 1}}
    evaluated = run_protocols(
        [first], board.folder, ["deletion"], tmp_path / "out", lvlm=board.lvlm, settings=options, cache=cache
    )
    assert not evaluated.errors
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("text", ["", "[]", '{"key": '])
def test_whose_scores_they_are_must_be_known(tmp_path: Path, text: str) -> None:
    """Without that file scores of two models could be mixed: this one is an error that names it."""
    board = world(tmp_path, additive)
    check_store(tmp_path / "scores", board.lvlm)
    (tmp_path / "scores" / "lvlm.json").write_text(text)
    with pytest.raises(MedGroundError, match="cannot be read") as error:
        check_store(tmp_path / "scores", board.lvlm)
    assert error.value.where == str(tmp_path / "scores" / "lvlm.json")
