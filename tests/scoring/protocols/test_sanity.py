"""Randomisation, questions, targets, mosaics, BAM, noise and leakage: methods whose answer is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from medground_bench.attribution.method import method
from medground_bench.core.errors import LvlmError, ScoringError
from medground_bench.lvlm.randomise import parameter_groups, shuffled
from medground_bench.scoring.protocols.bam import concept_attribution, disc
from medground_bench.scoring.protocols.grid_pointing import cell_share, mosaic
from medground_bench.scoring.protocols.maps import alike, ssim, top_overlap
from medground_bench.scoring.protocols.noise import feature_precision, uscore
from medground_bench.scoring.protocols.protocol import get_protocol
from medground_bench.scoring.protocols.randomisation import entropy
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.scoring.protocols.shapes import fit_logistic, told_apart
from tests.scoring.protocols.kit import SIDE, World, mean, run, world

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm
    from medground_bench.scoring.protocols.result import ProtocolResult


@method("bright", family="test", over="frame")
def bright(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    """What is bright, whatever is asked: a method that knows neither model nor question."""
    return episode.frame_array.astype(float)


@method("asked", family="test", over="frame")
def asked(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    """The bright pixels of the left half for one answer, of the right half for the other."""
    frame = episode.frame_array.astype(float)
    left = np.arange(frame.shape[1]) < frame.shape[1] / 2
    return frame * (left if episode.response.lower().startswith("yes") else ~left) + 1e-3 * frame


METHODS = {"bright": bright, "asked": asked}


def grain(k: int) -> np.ndarray:
    """A spot of the record on a grainy ground."""
    pixels = np.random.default_rng(k).integers(20, 60, (SIDE, SIDE), dtype=np.uint8)
    pixels[20:30, 10:20] = 250
    return pixels


def seen(frame: np.ndarray, question: str) -> float:
    return 0.95 if (frame > 200).sum() >= 30 else 0.05


def spot(k: int) -> list[list[float]]:
    return [[10.0, 20.0, 20.0, 30.0]]


def board_of(root: Path, game: Any = seen, **columns: Any) -> World:
    return world(root, game, image=columns.pop("image", grain), boxes=columns.pop("boxes", spot), **columns)


def submission(board: World, name: str = "bright") -> Path:
    def heat(record: Any) -> np.ndarray:
        episode = board.lvlm.prepare(record.image, record.question, "Yes", side=SIDE)
        return np.asarray(METHODS[name].function(board.lvlm, episode, None))

    return board.submit(name, heat=heat)


class TestShuffled:
    def test_everything_is_put_back(self, tiny_qwen: Lvlm) -> None:
        before = {name: p.detach().clone() for name, p in tiny_qwen.model.named_parameters()}
        with shuffled(tiny_qwen, ["decoder"]):
            moved = {n for n, p in tiny_qwen.model.named_parameters() if not torch.equal(p, before[n])}
            sums = [
                (float(p.detach().double().sum()), float(before[n].double().sum()))
                for n, p in tiny_qwen.model.named_parameters()
                if n in moved
            ]
        layers = {id(p) for p in tiny_qwen.layers.parameters()}
        assert moved
        assert all(id(p) in layers for n, p in tiny_qwen.model.named_parameters() if n in moved)
        assert np.allclose(*np.transpose(sums), atol=1e-3)
        assert all(torch.equal(p, before[n]) for n, p in tiny_qwen.model.named_parameters())

    def test_after_an_error_too(self, tiny_gemma: Lvlm) -> None:
        before = [p.detach().clone() for p in tiny_gemma.model.parameters()]
        with pytest.raises(ZeroDivisionError), shuffled(tiny_gemma, ["head", "vision", "projector"]):
            raise ZeroDivisionError
        assert all(torch.equal(p, b) for p, b in zip(tiny_gemma.model.parameters(), before, strict=True))

    @pytest.mark.parametrize("family", ["tiny_qwen", "tiny_gemma"])
    def test_every_parameter_is_of_one_group(self, family: str, request: pytest.FixtureRequest) -> None:
        lvlm = request.getfixturevalue(family)
        groups = parameter_groups(lvlm)
        ids = [id(p) for found in groups.values() for p in found]
        assert sorted(ids) == sorted(id(p) for p in lvlm.model.parameters())
        assert all(groups.values())

    @pytest.mark.parametrize("family", ["tiny_qwen", "tiny_gemma"])
    def test_quarters_are_parts_of_the_groups(self, family: str, request: pytest.FixtureRequest) -> None:
        lvlm = request.getfixturevalue(family)
        groups, quarters = parameter_groups(lvlm), parameter_groups(lvlm, quarters=True)
        for name, found in groups.items():
            mine = [p for quarter, ps in quarters.items() if quarter.rpartition("_")[0] == name for p in ps]
            assert {id(p) for p in mine or quarters[name]} == {id(p) for p in found}
        place = {id(p): k for k, layer in enumerate(lvlm.layers) for p in layer.parameters()}
        layers = [sorted({place[id(p)] for p in quarters[f"decoder_{k}"]}) for k in (1, 2, 3, 4)]
        assert [k for found in layers for k in found] == list(range(len(lvlm.layers)))

    def test_unknown_parts(self, tiny_qwen: Lvlm) -> None:
        with pytest.raises(LvlmError, match="unknown part"), shuffled(tiny_qwen, ["feet"]):
            pass


def run_again(
    lvlm: Lvlm, root: Path, protocol: str, found: dict[str, Any], settings: dict[str, Any] | None = None
) -> Iterator[tuple[str, ProtocolResult]]:
    """Submissions of methods, made for a real LVLM, and what a protocol that runs them again says of each."""
    board = board_of(root, n=2, model=lambda k: lvlm.key, id=lambda k: f"{lvlm.key}/{k}")
    for name, each in found.items():
        path = board.submit(
            name,
            heat=lambda r, each=each: each.function(lvlm, board.lvlm.prepare(r.image, "?", "Yes", SIDE), None),
        )
        text = (path / "submission.json").read_text().replace('"tiny_a"', f'"{lvlm.key}"')
        (path / "submission.json").write_text(text)
        options: dict[str, Any] = {"lvlm": lvlm, "methods": found, "settings": {protocol: settings or {}}}
        report = run_protocols([path], board.folder, [protocol], root / "out", resamples=200, **options)
        assert not report.errors, report.errors
        yield name, report.results[name, protocol]


@method("weights", family="test", over="frame")
def weights(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    """A picture of the first layer's weights."""
    values = next(iter(lvlm.layers.parameters())).detach().float().ravel()[:400]
    return np.asarray(values, float).reshape(20, 20)


def test_randomisation_tells_who_looks_at_the_model(tiny_qwen: Lvlm, tmp_path: Path) -> None:
    """A map of pixels stays as it is; one that is a picture of a layer's weights does not."""
    for name, result in run_again(tiny_qwen, tmp_path, "randomisation", {"bright": bright, "weights": weights}):
        independent = name == "bright"
        assert mean(result, "model_independent") == float(independent)
        assert mean(result, "only_vision") == pytest.approx(1.0)
        assert (abs(mean(result, "only_decoder")) < 0.3) != independent
        assert (mean(result, "similarity_ssim") > 0.99) == independent
        assert "never a ranking" in result.note
        assert result.count["runs"] == 14
        assert not {"top_down_decoder", "similarity_smooth"} & set(result.values)
        assert not result.tables


def test_from_the_answer_down_the_first_layer_is_late(tiny_qwen: Lvlm, tmp_path: Path) -> None:
    """Of three layers the first is the first quarter: a map of its weights stays until it comes, in either order."""
    settings = {"top_down": True, "quarters": True, "noisy": 2}
    found = {"bright": bright, "weights": weights}
    for name, result in run_again(tiny_qwen, tmp_path, "randomisation", found, settings):
        rows = {(row["order"], row["shuffled last"]): row for row in result.tables[0].rows}
        parts = [step for order, step in rows if order == "independent"]
        assert parts == [step for order, step in rows if order == "top down"]
        assert "decoder_1" in parts
        for (order, step), row in rows.items():
            k, first = parts.index(step), parts.index("decoder_1")
            late = {"independent": k != first, "top down": k < first, "bottom up": k > first}[order]
            if name == "bright" or late:
                assert (row["spearman"], row["ssim"]) == pytest.approx((1, 1))
            else:
                assert abs(row["spearman"]) < 0.3
        assert (abs(mean(result, "top_down_decoder")) < 0.3) == (name == "weights")
        assert (mean(result, "similarity_smooth") > 0.9) == (name == "bright")
        # Each set of parts once, though two orders share it; the decoder alone is in none of them; 2 x noisy.
        sets = {frozenset(c) for k in range(len(parts)) for c in (parts[k : k + 1], parts[k:], parts[: k + 1])}
        assert result.count["runs"] == 2 * (len(sets) + 1 + 4)


def test_structural_similarity_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    a, b = rng.random((16, 16)), rng.normal(size=(16, 16))
    scaled = [(v - v.min()) / np.ptp(v) for v in (a, b)]
    _, theirs = metrics.structural_similarity(
        *scaled, data_range=1, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    assert ssim(a, b) == pytest.approx(theirs.mean())
    assert ssim(a, 3 * a - 1) == pytest.approx(1)
    assert ssim(a, np.ones((16, 16))) == 0


class TestQuestions:
    @pytest.fixture
    def board(self, tmp_path: Path) -> World:
        """Two questions about each of four images."""
        return board_of(
            tmp_path,
            image_id=lambda k: f"shared{k // 2}",
            dataset=lambda k: "vindr_cxr",
            question=lambda k: f"question {k % 2}",
            image=lambda k: grain(k // 2),
        )

    def test_a_map_of_the_image_alone_ignores_the_question(self, board: World) -> None:
        result = run(board, submission(board), "question_independence")
        assert mean(result, "similarity") == pytest.approx(1.0)
        assert mean(result, "ignores") == 1
        assert result.count["passes"] == 0

    def test_random_maps_do_not(self, board: World) -> None:
        rng = np.random.default_rng(0)
        result = run(board, board.submit("random", heat=lambda r: rng.random((8, 8))), "question_independence")
        assert abs(mean(result, "similarity")) < 0.3
        assert mean(result, "ignores") == 0

    def test_a_lonely_question_is_left_out(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        result = run(board, submission(board), "question_independence")
        assert result.skipped == {"the only question about its image": 8}


class TestTarget:
    def test_a_map_of_the_image_alone(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        result = run(board, submission(board), "random_target", methods=METHODS)
        assert mean(result, "correlation") == pytest.approx(1.0)

    def test_a_map_of_the_answer(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        result = run(board, submission(board, "asked"), "random_target", methods=METHODS)
        assert mean(result, "correlation") < 0
        assert mean(result, "top") == 0

    def test_random_words_are_another_answer(self, tiny_qwen: Lvlm, tmp_path: Path) -> None:
        @method("said", family="test", over="frame")
        def said(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
            return np.random.default_rng(list(episode.response.encode())).random((8, 8))

        found = {"bright": bright, "said": said}
        for name, result in run_again(tiny_qwen, tmp_path, "random_target", found, {"words": 3}):
            assert result.count["runs"] == 2 * 4
            if name == "bright":
                assert mean(result, "similarity_words") == mean(result, "correlation_words") == pytest.approx(1)
            else:
                assert mean(result, "similarity_words") < 0.35
                assert abs(mean(result, "correlation_words")) <= mean(result, "similarity_words")

    def test_an_lvlm_without_a_tokenizer_has_no_words(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        result = run(board, submission(board), "random_target", {"words": 2}, methods=METHODS)
        assert "similarity_words" not in result.values
        assert result.count["runs"] == 8

    def test_a_method_that_is_not_there(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        path = submission(board)
        report = run_protocols([path], board.folder, ["random_target"], tmp_path / "out", lvlm=board.lvlm)
        assert report.missing == [
            "random_target on bright: its method has to be run again, and cannot: no method named 'bright'"
        ]


class TestGrid:
    def test_hand_maps(self) -> None:
        """Three parts inside and one outside; what is negative does not count."""
        heat = np.zeros((4, 4))
        heat[0, 0], heat[3, 3], heat[0, 3] = 3, 1, -9
        assert cell_share(heat, 0) == 0.75
        assert cell_share(heat, 3) == 0.25
        assert cell_share(-np.ones((4, 4)), 0) == 0.0

    def test_a_mosaic_is_four_halves(self) -> None:
        frames = [np.full((8, 8), value, np.uint8) for value in (10, 20, 30, 40)]
        assert mosaic(frames)[::4, ::4].tolist() == [[10, 20], [30, 40]]

    def test_the_bright_spot_is_found(self, tmp_path: Path) -> None:
        """Records whose own question the others' images deny: each looks for its own grey level."""

        def game(frame: np.ndarray, question: str) -> float:
            level = int(question.split()[-1])
            return 0.95 if ((frame >= level - 2) & (frame <= level + 2)).sum() >= 10 else 0.05

        def pixels(k: int) -> np.ndarray:
            out = np.full((SIDE, SIDE), 20, np.uint8)
            out[20:40, 10:30] = 100 + 18 * k
            return out

        def target(lvlm: Any, episode: Any) -> np.ndarray:
            level = int(episode.question.split()[-1])
            return (np.abs(episode.frame_array.astype(float) - level) <= 2).astype(float)

        board = board_of(tmp_path, game, image=pixels, question=lambda k: f"level {100 + 18 * k}")
        path = board.submit("target", heat=lambda r: target(None, board.lvlm.prepare(r.image, r.question, "Yes", SIDE)))
        result = run(board, path, "grid_pointing", methods={"target": target})
        assert mean(result, "share") > 0.95
        assert mean(result, "hit") == 1
        flat = board.submit("flat", heat=lambda r: np.random.default_rng(0).random((8, 8)))
        everywhere = run(
            board, flat, "grid_pointing", methods={"flat": lambda lvlm, episode: np.tile(np.eye(7), (8, 8))}
        )
        assert mean(everywhere, "share") == pytest.approx(0.25)


class TestBam:
    def test_a_constant_inside_the_mask(self) -> None:
        mask = np.zeros((20, 20), bool)
        mask[3:9, 4:12] = True
        assert concept_attribution(mask.astype(float), mask) == 1
        assert concept_attribution(mask.astype(float), ~mask) == 0
        assert concept_attribution(np.zeros((20, 20)), mask) == 0

    def test_one_map_for_all_questions_has_no_contrast(self, tmp_path: Path) -> None:
        board = board_of(tmp_path)
        result = run(board, submission(board), "bam", methods=METHODS)
        assert mean(result, "question_contrast") == pytest.approx(0, abs=1e-9)
        assert mean(result, "input_dependence") == 0  # a bright disc draws it
        assert result.count["runs"] > 0

    def test_a_map_that_never_changes_is_independent_of_useless_pixels(self, tmp_path: Path) -> None:
        """Nor does its attribution fall where something useless is drawn."""

        @method("still", family="test", over="frame")
        def still(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
            return np.add.outer(np.arange(8.0), np.arange(8.0))

        board = board_of(tmp_path)
        path = board.submit("still", heat=lambda r: still.function(None, None, None))
        result = run(board, path, "bam", methods={"still": still})
        assert mean(result, "input_independence") == 1
        assert mean(result, "input_dependence") == 0
        assert mean(result, "question_contrast") == pytest.approx(0, abs=1e-6)


class TestNoise:
    def test_hand_values(self) -> None:
        truth = np.array([[1, 1, 0, 0]], float)
        assert uscore(truth * 7, truth) == pytest.approx(1)
        assert uscore(np.array([[0, 0, 1, 1.0]]), truth) == pytest.approx(0, abs=1e-6)
        assert uscore(np.array([[0, 0, 1, 0]]), np.array([[1, 0, 0, 0]])) == pytest.approx(0.5, abs=1e-6)
        assert feature_precision(np.array([4, 3, 2, 1]), np.array([1, 0, 1, 0])) == 0.5
        assert feature_precision(np.ones(4), np.array([1, 0, 0, 0])) == 0.25

    def test_a_bright_spot_drowns(self, tmp_path: Path) -> None:
        board = board_of(tmp_path, lambda frame, question: 0.9)
        result = run(board, submission(board), "noise", methods=METHODS)
        assert mean(result, "auprc_0") == pytest.approx(1.0)
        assert mean(result, "precision_0") == pytest.approx(1.0)
        curve = [mean(result, f"auprc_{level}") for level in (0, 4, 16, 64)]
        assert curve == sorted(curve, reverse=True)
        assert mean(result, "loss") == pytest.approx(
            np.mean([1 - mean(result, f"auprc_{level}") for level in (4, 8, 16, 32, 64)])
        )

    def test_decoys_draw_who_is_dazzled_and_not_who_knows(self, tmp_path: Path) -> None:
        """Discs of 240 grey levels beside a spot of 250: all as bright to one method, nothing to the other."""

        @method("exact", family="test", over="frame")
        def exact(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
            return (episode.frame_array == 250).astype(float)

        @method("dazzled", family="test", over="frame")
        def dazzled(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
            return (episode.frame_array >= 240).astype(float)

        board = board_of(tmp_path, lambda frame, question: 0.9)
        found = {"dazzled": dazzled, "exact": exact}
        area = int((disc(np.zeros((6, 6))) > 0).sum())
        for name, each in found.items():
            path = board.submit(
                name, heat=lambda r, each=each: each.function(None, board.lvlm.prepare(r.image, "", "", SIDE), None)
            )
            result = run(board, path, "noise", {"levels": (4,), "decoys": (1, 4)}, methods=found)
            precision = [1.0 if name == "exact" else 100 / (100 + k * area) for k in (1, 4)]
            for k, expected in zip((1, 4), precision, strict=True):
                assert mean(result, f"auprc_decoys_{k}") == pytest.approx(expected)
                assert mean(result, f"heat_decoys_{k}") == pytest.approx(1 - expected, abs=1e-6)
                assert mean(result, f"heat_before_{k}") == 0
                assert mean(result, f"kept_decoys_{k}") == 1
            assert mean(result, "loss_decoys") == pytest.approx(1 - np.mean(precision))
            assert result.count["runs"] == 8 * 3

    def test_decoys_that_find_no_place(self, tmp_path: Path) -> None:
        board = board_of(tmp_path, lambda frame, question: 0.9, boxes=lambda k: [[0.0, 0.0, SIDE, SIDE]])
        result = run(board, submission(board), "noise", {"levels": (4,), "decoys": (1,)}, methods=METHODS)
        assert "auprc_decoys_1" not in result.values
        with pytest.raises(ScoringError, match="decoys must be among 1, 2, 4, 8"):
            get_protocol("noise").make_parameters({"decoys": [3]})

    def test_what_is_no_longer_answered_is_not_counted(self, tmp_path: Path) -> None:
        board = board_of(tmp_path, lambda frame, question: 0.9 if frame[40:, 40:].std() < 20 else 0.1)
        result = run(board, submission(board), "noise", methods=METHODS)
        assert mean(result, "kept_4") == 1
        assert mean(result, "kept_64") == 0
        assert "auprc_64" not in result.values


class TestLeakage:
    def test_a_map_that_is_told_its_answer_leaks(self, tmp_path: Path) -> None:
        """What is shown on the left makes the model say yes, on the right no: evidence for both is in every image."""

        def game(frame: np.ndarray, question: str) -> float:
            half = SIDE // 2
            return float(np.clip(0.5 + (frame[:, :half].std() - frame[:, half:].std()) / 20, 0.01, 0.99))

        def both(k: int) -> np.ndarray:
            return np.tile(np.random.default_rng(k).integers(20, 200, (SIDE, SIDE // 2), dtype=np.uint8), (1, 2))

        board = board_of(tmp_path, game, image=both)
        leaks = run(board, submission(board, "asked"), "leakage", {"fill": "mean"}, methods=METHODS)
        assert mean(leaks, "leak") == 1
        same = run(board, submission(board), "leakage", {"fill": "mean"}, methods=METHODS)
        assert mean(same, "leak") == 0
        assert mean(leaks, "log_loss") < mean(leaks, "log_loss_random")
        assert not [name for name in leaks.values if name.startswith("_")]
        for result, least, most in ((leaks, 0.99, 1.0), (same, 0.5, 0.5)):
            (row,) = result.tables[0].rows
            assert row["records"] == row["patients"] == 8
            assert least <= row["auroc"] <= most

    def test_from_few_patients_nothing_is_told(self, tmp_path: Path) -> None:
        board = board_of(tmp_path, n=3)
        result = run(board, submission(board), "leakage", methods=METHODS)
        assert [(table.title, table.rows) for table in result.tables] == [
            ("too few to tell the answer by: maps of 3 patients", [])
        ]


class TestShapes:
    def test_the_fit_is_that_of_scikit_learn(self) -> None:
        linear_model = pytest.importorskip("sklearn.linear_model")
        rng = np.random.default_rng(4)
        for count, features in ((60, 5), (30, 64)):
            x = rng.random((count, features))
            y = x[:, 0] + 0.3 * rng.normal(size=count) > 0.5
            theirs = linear_model.LogisticRegression(C=1.0, tol=1e-9, max_iter=1000).fit(x, y)
            mine = fit_logistic(x, y)
            assert mine == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-4)

    def test_labels_that_a_map_shows_and_labels_that_it_does_not(self) -> None:
        rng = np.random.default_rng(5)
        patients = [("d", str(k // 2)) for k in range(120)]
        labels = np.arange(120) % 2 == 0
        noise = rng.random((120, 16))
        shown = noise.copy()
        shown[labels, :8] += 1
        assert told_apart(shown, labels, patients, resamples=100).auroc > 0.95
        told = told_apart(noise, labels, patients, resamples=200)
        assert told.low < 0.5 < told.high

    def test_a_patient_is_never_on_both_sides(self) -> None:
        """Every patient has a mark of its own that tells its label: useless for others."""
        marks = np.repeat(np.eye(24), 4, axis=0)
        labels = np.repeat(np.random.default_rng(0).random(24) < 0.5, 4)
        told = told_apart(marks, labels, [("d", str(k // 4)) for k in range(96)], resamples=50)
        assert told.auroc < 0.75


def test_how_alike() -> None:
    from scipy.stats import kendalltau

    a = np.random.default_rng(0).random((8, 8))
    assert alike(a, a) == pytest.approx({"spearman": 1, "kendall": 1, "cosine": 1, "top": 1})
    assert alike(a, -a)["kendall"] == pytest.approx(-1)
    b = np.random.default_rng(1).random((8, 8))
    assert alike(a, b)["kendall"] == pytest.approx(kendalltau(a.ravel(), b.ravel()).statistic, abs=1e-6)
    assert alike(a, np.ones((8, 8)))["spearman"] == 0
    assert alike(a, np.kron(a, np.ones((7, 7))))["spearman"] > 0.9
    assert top_overlap(a, b) < 0.5
    assert entropy(np.ones((4, 4))) == 0
    assert entropy(np.arange(100.0)) == pytest.approx(np.log(100))
