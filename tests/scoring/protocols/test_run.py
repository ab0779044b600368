"""Running protocols: resumed, shared, and what is missing told in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core import files
from medground_bench.core.errors import MedGroundError, ScoringError
from medground_bench.scoring.protocols.protocol import Measure, Skip, available_protocols, get_protocol, protocol
from medground_bench.scoring.protocols.result import read_result, read_results
from medground_bench.scoring.protocols.run import run_protocols
from tests.baselines.kit import WEIGHTS
from tests.scoring.protocols.kit import SIDE, World, additive, quadrant, quadrant_map, world

DELETION = {"deletion": {"fill": "black", "regions": "tiles:2x2", "steps": 4, "randoms": 2}}


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, additive)


def go(board: World, paths: list[Path], names: list[Any], out: str = "out", **options: Any) -> Any:
    options = {"lvlm": board.lvlm, "resamples": 200, **options}
    return run_protocols(paths, board.folder, names, board.root / out, **options)


def test_every_registered_protocol_loads() -> None:
    for name in available_protocols():
        found = get_protocol(name)
        assert found.asks.endswith("?")
        assert found.measures
        assert found.make_parameters() is not None


def test_unknown_names() -> None:
    with pytest.raises(ScoringError, match="no protocol named 'deletions'") as error:
        get_protocol("deletions")
    assert error.value.remedy == "did you mean 'deletion'?"
    with pytest.raises(ScoringError, match="has no parameter colour"):
        get_protocol("deletion").make_parameters({"colour": 1})
    with pytest.raises(ScoringError, match="refuses its parameters"):
        get_protocol("deletion").make_parameters({"fill": "pink"})


def test_a_run_that_was_done_is_not_done_again(board: World) -> None:
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    first = go(board, [path], ["deletion"], settings=DELETION)
    passes = board.lvlm.passes
    assert (first.computed, first.reused, passes > 0) == (8, 0, True)
    again = go(board, [path], ["deletion"], settings=DELETION)
    assert (again.computed, again.reused, board.lvlm.passes) == (0, 8, passes)
    one, other = (r.results["right", "deletion"] for r in (first, again))
    assert all(np.array_equal(one.values[k], other.values[k]) for k in one.values)
    assert one.aggregates == other.aggregates


def test_a_killed_run_goes_on(board: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    whole = go(board, [path], ["deletion"], out="whole", settings=DELETION)
    scores, calls = board.lvlm.log_probs, [0]

    def dies(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] > 12:
            raise KeyboardInterrupt
        return scores(*arguments, **options)

    monkeypatch.setattr(board.lvlm, "log_probs", dies)
    with pytest.raises(KeyboardInterrupt):
        go(board, [path], ["deletion"], settings=DELETION)
    monkeypatch.undo()
    rest = go(board, [path], ["deletion"], settings=DELETION)
    assert 0 < rest.reused < 8
    a, b = (r.results["right", "deletion"] for r in (whole, rest))
    assert all(np.array_equal(a.values[k], b.values[k]) for k in a.values)


def test_what_a_killed_run_left_is_removed_though_all_is_done(board: World) -> None:
    """A record that is done is not written again: it takes no writing to look for leftovers."""
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    first = go(board, [path], ["deletion"], settings=DELETION)
    (cache,) = first.paths[0].parents[1].glob(".cache")
    left = cache / f".record.json.{files._host()}-{2**31 - 1}.x.part"
    left.write_text("half")
    assert go(board, [path], ["deletion"], settings=DELETION).reused == 8
    assert not left.exists()


def test_processes_share_the_records(board: World) -> None:
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    first = go(board, [path], ["deletion"], settings=DELETION, rank=0, world_size=2)
    assert (first.computed, first.results) == (4, {})
    second = go(board, [path], ["deletion"], settings=DELETION, rank=1, world_size=2)
    assert second.computed == 4
    assert len(second.results["right", "deletion"].ids) == 8


def test_methods_share_what_the_lvlm_said(board: World) -> None:
    """Two maps of one order cost what one does, and random orders are the records'."""
    paths = [board.submit(f"map{k}", heat=lambda r, k=k: quadrant_map(WEIGHTS) * k) for k in (1, 2)]
    report = go(board, paths, ["deletion"], settings=DELETION)
    one, other = (report.results[p.name, "deletion"].count for p in paths)
    assert one["passes"] > 0
    assert other["passes"] == 0
    assert other["found"] == one["passes"] + one["found"]
    assert board.lvlm.passes == one["passes"]


def test_other_heat_maps_are_another_submission(board: World) -> None:
    """Their rows are the same, to the byte."""
    scores = []
    for weights in (WEIGHTS, (1, 2, 3, 4)):
        path = board.submit("same", heat=lambda r, weights=weights: quadrant_map(weights))
        report = go(board, [path], ["deletion"], settings=DELETION)
        assert report.reused == 0
        scores.append(report.results["same", "deletion"].find().values["deletion"].value)
    assert scores[0] == pytest.approx(0.34375, abs=1e-4)
    assert scores[1] == pytest.approx(0.65625, abs=1e-4)


def test_other_settings_are_refused(board: World) -> None:
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    go(board, [path], ["deletion"], settings=DELETION)
    with pytest.raises(MedGroundError, match="steps was 4, is 2"):
        go(board, [path], ["deletion"], settings={"deletion": {**DELETION["deletion"], "steps": 2}})


def test_a_parameter_that_an_earlier_version_did_not_have_was_at_its_default(board: World) -> None:
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    go(board, [path], ["deletion"], settings=DELETION)
    written = board.root / "out" / ".parts" / "settings-deletion.json"
    settings = json.loads(written.read_text())
    assert settings.pop("least") == 0.05
    written.write_text(json.dumps(settings))
    assert go(board, [path], ["deletion"], settings=DELETION).reused == 8
    with pytest.raises(MedGroundError, match=r"least was 0\.05, is 0\.1"):
        go(board, [path], ["deletion"], settings={"deletion": {**DELETION["deletion"], "least": 0.1}})


def test_what_is_missing_is_told_and_the_others_go_on(board: World) -> None:
    boxes = board.submit("boxes", lambda r: [quadrant(0)])
    report = go(board, [boxes], ["deletion", "necessity"], settings=DELETION)
    assert report.missing == ["deletion on boxes: the submission has no heat maps"]
    assert list(report.results) == [("boxes", "necessity")]


def test_another_lvlm(board: World) -> None:
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    board.lvlm.key = "tiny_b"  # type: ignore[misc]
    assert go(board, [path], ["deletion"]).missing == [
        "deletion on right: the submission is for LVLM tiny_a, not for tiny_b"
    ]
    assert go(board, [path], ["deletion"], lvlm=None).missing == [
        "deletion on right: the LVLM tiny_a is needed (--lvlm)"
    ]


def test_maps_of_another_frame_are_counted(board: World) -> None:
    shapes = iter([(8, 8), (8, 16), (8, 8), (16, 8), (8, 8), (8, 8), (8, 8), (8, 8)])
    path = board.submit("shapes", heat=lambda r: np.random.default_rng(0).random(next(shapes)))
    result = go(board, [path], ["deletion"], settings=DELETION).results["shapes", "deletion"]
    assert result.skipped == {
        f"a heat map of 8 x 16 is not over the frame of {SIDE} x {SIDE}": 1,
        f"a heat map of 16 x 8 is not over the frame of {SIDE} x {SIDE}": 1,
    }
    assert np.isnan(result.values["skill"]).sum() == 2


def test_constant_maps_are_counted(board: World) -> None:
    path = board.submit("constant", heat=lambda r: np.ones((8, 8)))
    result = go(board, [path], ["deletion"], settings=DELETION).results["constant", "deletion"]
    assert result.skipped == {"a constant heat map, or one that is not finite": 8}


def test_an_invalid_submission_is_named(board: World) -> None:
    good = board.submit("good", lambda r: [quadrant(0)])
    bad = board.submit("bad", lambda r: [[5, 5, 1, 1]])
    report = go(board, [good, bad], ["necessity"])
    assert list(report.results) == [("good", "necessity")]
    assert len(report.missing) == 1
    assert "bad: not valid (8 faults)" in report.missing[0]


def test_a_failing_record_is_told_and_tried_again(board: World) -> None:
    broken = [True]

    @protocol("odd", asks="Odd?", measures=[Measure("odd")])
    def odd(case: Any, parameters: Any) -> dict[str, float]:
        if case.record.image_id == "img003" and broken[0]:
            raise ValueError("it fails")
        if case.record.image_id == "img004":
            raise Skip("not this one")
        return {"odd": 1.0}

    path = board.submit("boxes", lambda r: [quadrant(0)])
    first = go(board, [path], [odd])
    assert not first.results
    assert len(first.errors) == 1
    assert "img003" in first.errors[0]
    assert "it fails" in first.errors[0]
    broken[0] = False
    second = go(board, [path], [odd])
    assert (second.computed, second.reused) == (1, 7)
    assert second.results["boxes", "odd"].skipped == {"not this one": 1}


def test_results_are_read_back(board: World) -> None:
    path = board.submit("right", lambda r: [quadrant(0)], lambda r: quadrant_map(WEIGHTS))
    report = go(board, [path], ["deletion", "necessity"], settings=DELETION)
    results = read_results(board.root / "out")
    assert [r.protocol for r in results] == ["deletion", "necessity"]
    for result in results:
        made = report.results["right", result.protocol]
        assert result.to_json() == made.to_json()
    damaged = report.paths[0]
    damaged.write_text(damaged.read_text().replace('"cluster":[0,', '"cluster":['))
    with pytest.raises(ScoringError, match="damaged"):
        read_result(damaged)


def test_a_hostile_method_name_stays_in_the_folder(board: World) -> None:
    path = board.submit("evil", lambda r: [quadrant(0)])
    text = (path / "submission.json").read_text()
    (path / "submission.json").write_text(text.replace('"evil"', '"../../evil"'))
    report = go(board, [path], ["necessity"])
    assert report.paths[0].resolve().is_relative_to((board.root / "out").resolve())
    assert report.results["../../evil", "necessity"].method == "../../evil"


def test_too_few_patients_give_no_interval(tmp_path: Path) -> None:
    board = world(tmp_path, additive, n=3)
    path = board.submit("right", heat=lambda r: quadrant_map(WEIGHTS))
    values = go(board, [path], ["deletion"], settings=DELETION).results["right", "deletion"].find().values
    assert np.isfinite(values["deletion"].value)
    assert np.isnan(values["deletion"].low)
