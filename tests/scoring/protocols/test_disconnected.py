"""DiFull and DiPart: the additive game by hand, and methods on a tiny model of the real class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medground_bench.scoring.protocols.run import run_protocols
from tests.scoring.protocols.kit import SIDE, World, additive, mean, run, world

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm


def half_bright(k: int) -> np.ndarray:
    """Every quarter of a mosaic of these is as bright as any other."""
    return np.random.default_rng(k).integers(100, 156, (SIDE, SIDE), dtype=np.uint8)


def occluded(lvlm: Any, episode: Any) -> np.ndarray:
    """What the game loses without each quarter: its exact attribution."""
    frame = np.asarray(episode.frame.convert("L"))
    half = SIDE // 2
    variants = [frame]
    for y in (0, 1):
        for x in (0, 1):
            variants.append(frame.copy())
            variants[-1][y * half : (y + 1) * half, x * half : (x + 1) * half] = 0
    p = np.exp(lvlm.log_probs(episode, np.stack(variants)).mean(axis=1))
    return np.kron((p[0] - p[1:]).reshape(2, 2), np.ones((4, 4)))


def everywhere(lvlm: Any, episode: Any) -> np.ndarray:
    """A checkerboard: half of its heat is in any two quarters."""
    return np.tile(np.eye(2), (4, 4))


METHODS = {"occluded": occluded, "everywhere": everywhere}


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, additive, image=half_bright)


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Games have no processor."""
    if "family" not in request.fixturenames:
        monkeypatch.setattr(f"{PROTOCOL}.settled_size", lambda lvlm, width, height: (width, height))


@pytest.fixture
def parted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Games do without a tower: what is hidden is black for the game."""
    asked: list[bool] = []

    @contextmanager
    def disconnected(lvlm: Any, episode: Any, hidden: Any, *, tower: bool) -> Iterator[None]:
        asked.append(tower)
        game, half = lvlm.game, SIDE // 2

        def blind(frame: np.ndarray, question: str) -> float:
            seen = frame.copy()
            for y, x in (divmod(quarter, 2) for quarter in hidden):
                seen[y * half : (y + 1) * half, x * half : (x + 1) * half] = 0
            return float(game(seen, question))

        lvlm.game = blind
        try:
            yield
        finally:
            lvlm.game = game

    monkeypatch.setattr(f"{PROTOCOL}.disconnected", disconnected)
    return asked


def submitted(board: World, name: str) -> Path:
    return board.submit(name, heat=lambda r: np.eye(2))


PROTOCOL = "medground_bench.scoring.protocols.disconnected"
OPTIONS = {"least": 0.0}
METHODS_OF_ALL_KINDS = ("occlusion", "grad_attention", "sobel")


def test_what_is_exact_has_all_its_heat_where_the_game_looks(board: World, parted: list[bool]) -> None:
    for name, tower in (("difull", True), ("dipart", False)):
        result = run(board, submitted(board, "occluded"), name, OPTIONS, methods=METHODS)
        assert mean(result, "share") == pytest.approx(1, abs=1e-9)
        assert mean(result, "hit") == 1
        assert result.count["runs"] == 8
        assert set(parted) == {tower}
        parted.clear()


def test_a_map_that_knows_nothing_is_at_chance(board: World, parted: list[bool]) -> None:
    result = run(board, submitted(board, "everywhere"), "difull", OPTIONS, methods=METHODS)
    assert mean(result, "share") == pytest.approx(0.5)
    assert mean(result, "hit") == pytest.approx(0.5)


def test_without_parting_the_exact_map_has_the_weights_of_the_game(
    board: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four eighths and one eighth of the additive game lie in the two quarters: the share is not 1 by itself."""

    @contextmanager
    def nothing(*args: Any, **options: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(f"{PROTOCOL}.disconnected", nothing)
    result = run(board, submitted(board, "occluded"), "difull", OPTIONS, methods=METHODS)
    assert mean(result, "share") == pytest.approx(5 / 8, abs=0.02)


def test_what_a_parted_model_says_is_not_remembered(board: World, parted: list[bool]) -> None:
    run(board, submitted(board, "occluded"), "difull", OPTIONS, methods=METHODS)
    assert not list((board.root / "out" / ".cache").glob("*.json"))


def test_an_answer_that_does_not_rest_on_them_is_left_out(tmp_path: Path, parted: list[bool]) -> None:
    board = world(tmp_path, lambda frame, question: 0.7)
    result = run(board, submitted(board, "everywhere"), "difull", methods=METHODS)
    assert result.skipped == {"the connected quarters hardly change the answer's confidence": 8}


def test_one_patient_has_no_mosaic(tmp_path: Path, parted: list[bool]) -> None:
    board = world(tmp_path, additive, n=2)
    result = run(board, submitted(board, "everywhere"), "difull", methods=METHODS)
    assert result.skipped == {"fewer than two images of other patients": 2}


@pytest.mark.parametrize("family", ["tiny_qwen", "tiny_gemma"])
def test_methods_on_a_model_of_the_real_class(family: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Perturbation, gradients and attention leave what is disconnected cold; a picture's edges do not."""
    lvlm: Lvlm = request.getfixturevalue(family)
    board = world(
        tmp_path,
        additive,
        n=3,
        image=lambda k: np.kron(half_bright(k), np.ones((2, 2), np.uint8)),
        model=lambda k: lvlm.key,
        id=lambda k: f"{lvlm.key}/{k}",
    )
    paths = []
    for name in (*METHODS_OF_ALL_KINDS, "attention"):
        path = submitted(board, name)
        text = (path / "submission.json").read_text().replace('"tiny_a"', f'"{lvlm.key}"')
        more = '"frame_side": 112, "rows": 4, "cols": 4' if name == "occlusion" else '"frame_side": 112'
        (path / "submission.json").write_text(text.replace(f'"frame_side": {SIDE}', more))
        paths.append(path)
    share = {}
    for protocol, names in (("difull", METHODS_OF_ALL_KINDS), ("dipart", ["occlusion", "attention"])):
        chosen = [path for path in paths if path.name in names]
        options: dict[str, Any] = {"lvlm": lvlm, "settings": {protocol: OPTIONS}, "resamples": 200}
        report = run_protocols(chosen, board.folder, [protocol], tmp_path / "out", **options)
        assert not report.errors, report.errors
        share[protocol] = {name: mean(report.results[name, protocol], "share") for name in names}
    assert share["difull"]["grad_attention"] == pytest.approx(1, abs=1e-6)
    assert share["difull"]["occlusion"] == pytest.approx(1, abs=1e-3)
    assert 0.4 < share["difull"]["sobel"] < 0.6
    assert share["dipart"]["attention"] == pytest.approx(1, abs=1e-6)
    assert share["dipart"]["occlusion"] < 0.99, "the tower tells of it"
