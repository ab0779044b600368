"""The causal filter on planted LVLMs: verdicts, calls, resuming, sharing, failures."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.answers import read_answer
from medground_bench.causal.editors import Editor, load_editor
from medground_bench.causal.filter import filter_candidates
from medground_bench.causal.verdicts import ANSWERS, read_verdicts
from medground_bench.core.errors import EditorError, MedGroundError
from medground_bench.core.files import Journal
from medground_bench.core.processes import ProcessGroup
from medground_bench.core.schema import GATES, MODES
from medground_bench.dataset.export import export_released
from medground_bench.dataset.records import join_verdicts, load_records
from medground_bench.dataset.released import read_released
from medground_bench.lvlm import Generated
from medground_bench.sources import open_source
from medground_bench.sources.phantom.source import phantom_for
from medground_bench.sources.phantom.writers import write_source
from tests.causal.planted import Causal, Refusing, Spurious, Whimsical, brute_force, essence, mark_corners

SIDE = 128


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source("phantom", tmp_path_factory.mktemp("data") / "phantoms", 7, seed=3, size=SIDE).root


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_source("phantom", tmp_path_factory.mktemp("data") / "marked", 5, seed=3, size=SIDE).root
    mark_corners(root)
    return root


def inpainter() -> Editor:
    return load_editor("inpaint", solve_side=24)


def sources(root: Path) -> dict[str, Any]:
    return {"phantom": open_source("phantom", root)}


def run(lvlm: Any, root: Path, out: Path, mode: str = "direct", editor: Editor | None = None, **how: Any) -> Any:
    return filter_candidates(lvlm, mode, sources(root), editor or load_editor("phantom"), out, **how)


def lines(out: Path) -> list[dict[str, Any]]:
    return sorted(
        (v.to_json() for v in read_verdicts(out)),
        key=lambda line: (line["model"], line["mode"], line["dataset"], line["index"]),
    )


# -- what the verdicts say --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_causal_lvlm_keeps_its_candidates(phantoms: Path, tmp_path: Path, mode: str) -> None:
    source = open_source("phantom", phantoms)
    lvlm = Causal(list({c.image_id: phantom_for(c) for c in source}.values()))
    report = run(lvlm, phantoms, tmp_path, mode)
    assert report.verdicts == {"kept": len(source)}
    assert lvlm.asked == report.questions == 4 * len(source)


@pytest.mark.parametrize("mode", MODES)
def test_a_spurious_lvlm_keeps_none(marked: Path, tmp_path: Path, mode: str) -> None:
    lvlm = Spurious("spurious")
    report = run(lvlm, marked, tmp_path, mode)
    assert report.verdicts == {"rejected": report.computed}
    assert {line["gate"] for line in lines(tmp_path)} == {"foreground"}
    assert all(line["read"]["original"] == "yes" for line in lines(tmp_path))
    assert lvlm.asked == 2 * report.computed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("editor", ["phantom", "inpaint"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_verdicts_equal_a_brute_force_recomputation(
    phantoms: Path, tmp_path: Path, mode: str, editor: str, batch_size: int
) -> None:
    editors = {"phantom": lambda: load_editor("phantom"), "inpaint": inpainter}
    run(Whimsical(), phantoms, tmp_path, mode, editors[editor](), batch_size=batch_size, seed=5)
    source = open_source("phantom", phantoms)
    found = lines(tmp_path)
    assert [line["index"] for line in found] == list(range(len(source)))
    truth = [brute_force(Whimsical(), mode, c, editors[editor](), seed=5) for c in source]
    for line, true in zip(found, truth, strict=True):
        assert line["gate"] == true["gate"]
        asked = len(ANSWERS) if line["gate"] is None else GATES.index(line["gate"]) + 1
        expected = [*true["answers"][:asked], *[None] * (4 - asked)]
        assert [line["answers"][name] for name in ANSWERS] == expected
    assert {line["gate"] for line in found} >= {"correct", "foreground"}


def test_an_undecided_answer_is_a_verdict_of_its_own(phantoms: Path, tmp_path: Path) -> None:
    run(Whimsical(yes=60, no=70), phantoms, tmp_path)
    found = lines(tmp_path)
    assert {line["verdict"] for line in found} >= {"rejected", "undecided"}
    for line in found:
        unread = [n for n in ANSWERS if line["answers"][n] is not None and line["read"][n] is None]
        assert (line["verdict"] == "undecided") == ("undecided" in line["flags"]) == bool(unread)
        if unread:
            assert line["gate"] == dict(zip(ANSWERS, GATES, strict=True))[unread[0]]


class Wordy(Whimsical):
    """Thinks aloud and comes to a yes each time, unless the limit of tokens cuts it off before."""

    chain = "The heart is inspected. There is no pleural effusion. An opacity is the finding.\n\nAnswer: yes."

    def __init__(self, limits: dict[int, int], chain: str | None = None) -> None:
        super().__init__("wordy")
        self.limits, self.chain = limits, chain or self.chain

    def generate(self, images: Any, questions: Any, max_new_tokens: int = 32) -> list[Generated]:
        self.calls += 1
        words = self.chain.split(" ")
        limit = self.limits.get(self.calls, len(words))
        return [Generated(" ".join(words[:limit]), limit >= len(words)) for _ in images]


def test_a_cut_text_is_not_read_as_a_flip(phantoms: Path, tmp_path: Path) -> None:
    # Cut after "There is no pleural effusion.", the foreground's answer would read as "no": a flip that never was.
    cut = "The heart is inspected. There is no pleural effusion."
    assert read_answer(cut) == "no"
    assert read_answer(Wordy.chain) == "yes"
    run(Wordy({2: len(cut.split(" "))}), phantoms, tmp_path, "reason", limit=1, batch_size=1)
    (line,) = lines(tmp_path)
    assert line["answers"]["foreground"] == cut
    assert line["cut"] == ["foreground"]
    assert line["read"]["foreground"] is None
    assert (line["gate"], line["verdict"]) == ("foreground", "undecided")


def test_a_cut_text_is_read_from_its_marked_answer_and_kept(phantoms: Path, tmp_path: Path) -> None:
    source = open_source("phantom", phantoms)
    truth = Causal(list({c.image_id: phantom_for(c) for c in source}.values()))

    class Endless(Causal):
        def generate(self, images: Any, questions: Any, max_new_tokens: int = 32) -> list[Generated]:
            replies = truth.generate(images, questions, max_new_tokens)
            return [Generated(f"{r.text}\nTo say more, there is no", False) for r in replies]

    report = run(Endless(truth.phantoms), phantoms, tmp_path, "reason")
    assert report.verdicts == {"kept": len(source)}
    assert all(line["cut"] == list(ANSWERS) for line in lines(tmp_path))
    assert len(join_verdicts(tmp_path, "reason", sources(phantoms)).records) == len(source)


def test_a_verdict_tells_its_story(phantoms: Path, tmp_path: Path) -> None:
    source = open_source("phantom", phantoms)
    lvlm = Causal(list({c.image_id: phantom_for(c) for c in source}.values()))
    run(lvlm, phantoms, tmp_path, limit=1)
    (line,) = lines(tmp_path)
    assert line["model"] == "causal"
    assert (line["dataset"], line["image_id"], line["attribute"]) == (
        "phantom",
        source[0].image_id,
        source[0].attribute,
    )
    assert line["answers"] == dict(zip(ANSWERS, ("Yes.", "No\n", "Yes.", "Yes."), strict=True))
    assert line["read"] == dict(zip(ANSWERS, ("yes", "no", "yes", "yes"), strict=True))
    assert line["quality"]["foreground"]["change"] > 0
    assert line["quality"]["foreground"]["leakage"] == 0
    header = json.loads((tmp_path / "filter.json").read_text())
    assert header["runs"]["causal/direct"]["revision"] == "planted-1"
    assert header["settings"]["editor"]["name"] == "phantom"
    assert header["sources"]["phantom"]["candidates"] == len(source)
    assert str(phantoms) not in json.dumps(header)


def test_early_gates_save_questions_and_lvlms_share_edits(phantoms: Path, tmp_path: Path) -> None:
    first, second = Whimsical("one"), Whimsical("two")
    one = run(first, phantoms, tmp_path)
    two = run(second, phantoms, tmp_path)
    for lvlm, report in ((first, one), (second, two)):
        mine = [line for line in lines(tmp_path) if line["model"] == lvlm.key]
        assert report.questions == lvlm.asked == sum(a is not None for line in mine for a in line["answers"].values())
        assert lvlm.asked < 4 * len(mine)
    wanted = {
        (line["index"], name) for line in lines(tmp_path) for name in ANSWERS[1:] if line["answers"][name] is not None
    }
    assert one.edits_made + two.edits_made <= len(wanted)
    assert two.edits_found > 0


def test_different_edits_of_one_image_share_a_seed_and_images_do_not(phantoms: Path) -> None:
    from medground_bench.causal.filter import edit_seed

    source = open_source("phantom", phantoms)
    seeds = {(c.image_id, edit_seed(0, c)) for c in source}
    assert len(seeds) == len({c.image_id for c in source}) == len({s for _, s in seeds})
    assert edit_seed(0, source[0]) != edit_seed(1, source[0])


# -- resuming and sharing ---------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing(phantoms: Path, tmp_path: Path) -> None:
    first = run(Whimsical(), phantoms, tmp_path)
    before = (tmp_path / "verdicts-00000.jsonl").read_bytes()
    lvlm = Whimsical()
    second = run(lvlm, phantoms, tmp_path)
    assert (second.computed, second.reused, lvlm.asked) == (0, first.computed, 0)
    assert (tmp_path / "verdicts-00000.jsonl").read_bytes() == before


def test_a_longer_run_continues_a_shorter_one(phantoms: Path, tmp_path: Path) -> None:
    run(Whimsical(), phantoms, tmp_path / "a", limit=5, batch_size=4)
    run(Whimsical(), phantoms, tmp_path / "a", batch_size=4)
    run(Whimsical(), phantoms, tmp_path / "b", batch_size=4)
    assert lines(tmp_path / "a") == lines(tmp_path / "b")


@pytest.mark.parametrize("world", [2, 3])
def test_shares_add_up_to_one_run(phantoms: Path, tmp_path: Path, world: int) -> None:
    run(Whimsical(), phantoms, tmp_path / "one", batch_size=3)
    reports = [
        run(Whimsical(), phantoms, tmp_path / "many", batch_size=3, group=ProcessGroup(rank, world))
        for rank in range(world)
    ]
    assert all(report.computed for report in reports)
    assert lines(tmp_path / "many") == lines(tmp_path / "one")
    # What several processes began, one continues.
    assert run(Whimsical(), phantoms, tmp_path / "many", batch_size=3).computed == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 3}, "batch_size"),
        ({"scaling": "percentile"}, "scaling"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"editor": "inpaint"}, "editor"),
        ({"revision": "other"}, "revision"),
        ({"source": "other"}, "digest"),
    ],
)
def test_other_settings_are_refused(phantoms: Path, marked: Path, tmp_path: Path, change: dict, said: str) -> None:
    run(Whimsical(), phantoms, tmp_path, limit=2)
    before = (tmp_path / "verdicts-00000.jsonl").read_bytes()
    lvlm = Whimsical()
    lvlm.revision = change.pop("revision", lvlm.revision)
    root = marked if change.pop("source", None) else phantoms
    editor = load_editor(change.pop("editor", "phantom"))
    with pytest.raises(MedGroundError, match=said) as info:
        run(lvlm, root, tmp_path, editor=editor, **{"limit": 2, **change})
    assert "use another --out" in str(info.value)
    assert (tmp_path / "verdicts-00000.jsonl").read_bytes() == before


def test_two_runs_in_one_folder_are_refused(phantoms: Path, tmp_path: Path) -> None:
    run(Whimsical(), phantoms, tmp_path, limit=1)
    with Journal(tmp_path, "verdicts"), pytest.raises(MedGroundError, match="another process"):
        run(Whimsical(), phantoms, tmp_path)


_WORKER = """
import sys
from pathlib import Path
from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import filter_candidates
from medground_bench.core.processes import process_group
from medground_bench.sources import open_source
from tests.causal.planted import Whimsical
root, out = map(Path, sys.argv[1:3])
source = open_source("phantom", root)
lvlm, editor = Whimsical(pause=float(sys.argv[3])), load_editor("inpaint", solve_side=24)
filter_candidates(lvlm, "direct", {"phantom": source}, editor,
                  out, batch_size=2, group=process_group())
"""


def worker(root: Path, out: Path, pause: float, **environment: str) -> subprocess.Popen[bytes]:
    here = Path(__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(root), str(out), str(pause)], cwd=here, env={**os.environ, **environment}
    )


def test_killed_at_random_moments_nothing_is_lost_or_done_twice(phantoms: Path, tmp_path: Path) -> None:
    assert worker(phantoms, tmp_path / "whole", 0.0).wait() == 0
    total = len(lines(tmp_path / "whole"))
    part = tmp_path / "killed" / "verdicts-00000.jsonl"
    moments = random.Random(7)
    for _ in range(3):
        had = part.read_bytes().count(b"\n") if part.exists() else 0
        process = worker(phantoms, tmp_path / "killed", 0.03)
        while process.poll() is None and (part.read_bytes().count(b"\n") if part.exists() else 0) <= had:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        now = part.read_bytes().count(b"\n")
        assert had < now < total
        # What was on disk before is there still.
    assert worker(phantoms, tmp_path / "killed", 0.0).wait() == 0
    assert part.read_bytes() == (tmp_path / "whole" / "verdicts-00000.jsonl").read_bytes()
    assert len(part.read_bytes().splitlines()) == total


def test_a_torn_line_is_judged_again(phantoms: Path, tmp_path: Path) -> None:
    run(Whimsical(), phantoms, tmp_path, batch_size=4)
    part = tmp_path / "verdicts-00000.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole[:-30])
    assert run(Whimsical(), phantoms, tmp_path, batch_size=4).computed == 1
    assert part.read_bytes() == whole


def test_two_processes_give_the_verdicts_of_one(phantoms: Path, tmp_path: Path) -> None:
    processes = [
        worker(phantoms, tmp_path / "two", 0.01, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert worker(phantoms, tmp_path / "one", 0.0).wait() == 0
    assert (tmp_path / "two" / "verdicts-00001.jsonl").stat().st_size > 0
    assert lines(tmp_path / "two") == lines(tmp_path / "one")


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A set of one's own to break: the exact counterfactuals of broken images are not needed."""
    return write_source("phantom", tmp_path / "own", 4, seed=9, size=SIDE, findings=["nodule", "cardiomegaly"]).root


def test_a_broken_image_is_reported_and_tried_again(own: Path, tmp_path: Path) -> None:
    source = open_source("phantom", own)
    broken = source[2].image_path
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    editor = inpainter()
    report = run(Whimsical(), own, tmp_path / "out", editor=editor)
    assert report.verdicts["error"] == 2  # two findings on that image
    assert report.computed == len(source)
    assert all(str(broken) in error or source[2].image_id in error for error in report.errors)
    failed = [line for line in lines(tmp_path / "out") if line["gate"] == "error"]
    assert {line["image_id"] for line in failed} == {source[2].image_id}
    assert all(line["flags"] == ["image_failed"] for line in failed)
    # Still broken: still reported, no second line for it.
    size = (tmp_path / "out" / "verdicts-00000.jsonl").stat().st_size
    assert len(run(Whimsical(), own, tmp_path / "out", editor=editor).errors) == 2
    assert (tmp_path / "out" / "verdicts-00000.jsonl").stat().st_size == size
    broken.write_bytes(whole)
    report = run(Whimsical(), own, tmp_path / "out", editor=editor)
    assert (report.computed, report.errors) == (2, [])
    run(Whimsical(), own, tmp_path / "fresh", editor=editor)
    assert lines(tmp_path / "out") == lines(tmp_path / "fresh")


def test_a_resized_copy_is_an_error_of_its_candidates(own: Path, tmp_path: Path) -> None:
    source = open_source("phantom", own)
    copy = source[0].image_path
    Image.open(copy).resize((SIDE * 2, SIDE * 2)).save(copy)
    report = run(Whimsical(), own, tmp_path / "out", editor=inpainter())
    failed = [line for line in lines(tmp_path / "out") if line["gate"] == "error"]
    assert {line["image_id"] for line in failed} == {source[0].image_id}
    assert all(f"the boxes are stated on {SIDE} x {SIDE}" in error for error in report.errors)


def test_an_image_the_lvlm_refuses_does_not_stop_its_batch(own: Path, tmp_path: Path) -> None:
    report = run(Refusing("refusing"), own, tmp_path / "out", editor=inpainter(), batch_size=8)
    for line in lines(tmp_path / "out"):
        assert (line["gate"] == "error") == (line["attribute"] == "nodule")
    assert len(report.errors) == 4
    assert "refuses this image" in report.errors[0]


class Failing(Editor):
    """Blackens, and fails on background edits of one image."""

    name = "failing"

    def __init__(self, image_id: str) -> None:
        self._image_id = image_id
        self._bad: set[str] = set()

    def bind(self, candidate: Any, image: Image.Image) -> None:
        if candidate.image_id == self._image_id:
            self._bad.add(image.tobytes().hex()[:200])

    def _edit(self, request: Any) -> Image.Image:
        if request.mask[0, 0] and request.image.tobytes().hex()[:200] in self._bad:
            raise EditorError("out of paint")
        pixels = np.asarray(request.image).copy()
        pixels[request.mask] = 0
        return Image.fromarray(pixels)


def test_failed_and_poor_edits_are_flagged(own: Path, tmp_path: Path) -> None:
    source = open_source("phantom", own)
    lvlm = Causal(list({c.image_id: phantom_for(c) for c in source}.values()))
    run(lvlm, own, tmp_path / "out", editor=Failing(source[0].image_id))
    found = lines(tmp_path / "out")
    assert any("blank:foreground" in line["flags"] for line in found)
    first = [
        line for line in found if line["image_id"] == source[0].image_id and "edit_failed:background" in line["flags"]
    ]
    assert first
    for line in first:
        assert (line["gate"], line["verdict"]) == ("error", "error")
        assert "out of paint" in line["error"]
        assert line["answers"]["foreground"] is not None


def test_candidates_without_a_valid_box_are_skipped(own: Path, tmp_path: Path) -> None:
    manifest = own / "phantom.json"
    content = json.loads(manifest.read_text())
    content["images"][1]["findings"][0]["boxes"] = [[5, 5, 5, 9]]
    manifest.write_text(json.dumps(content))
    report = run(Whimsical(), own, tmp_path / "out", editor=inpainter())
    assert report.verdicts["skipped"] == 1
    assert report.errors == []
    assert run(Whimsical(), own, tmp_path / "out", editor=inpainter()).computed == 0


def test_arguments_out_of_range(own: Path, tmp_path: Path) -> None:
    for how in ({"mode": "loud"}, {"batch_size": 0}, {"limit": 0}, {"scaling": "log"}):
        with pytest.raises(MedGroundError):
            run(Whimsical(), own, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


# -- onwards ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_records_and_the_released_layout_read_back_equal(phantoms: Path, tmp_path: Path, mode: str) -> None:
    source = open_source("phantom", phantoms)
    lvlm = Causal(list({c.image_id: phantom_for(c) for c in source}.values()), key="qwen2_5_vl_3b")
    run(lvlm, phantoms, tmp_path / "verdicts", mode)
    run(Whimsical(), phantoms, tmp_path / "verdicts", mode)
    kept = [line for line in lines(tmp_path / "verdicts") if line["gate"] is None]
    joined = load_records(tmp_path / "verdicts", mode, sources(phantoms))
    assert sorted(r.candidate.index for r in joined.records) == sorted(line["index"] for line in kept)
    file = tmp_path / "own.json"
    assert export_released(tmp_path / "verdicts", mode, sources(phantoms), file) == len(kept)
    back = read_released(file, mode, allow_other=True, models={"whimsical"})
    assert {(e.model, e.index, e.predictions) for e in back.entries} == {
        (line["model"], line["index"], tuple(line["answers"].values())) for line in kept
    }
    assert len(join_verdicts(tmp_path / "verdicts", mode, sources(phantoms), lvlms=["qwen2_5_vl_3b"]).records) == len(
        source
    )


def test_nothing_kept_cannot_be_exported(marked: Path, tmp_path: Path) -> None:
    run(Spurious("spurious"), marked, tmp_path / "out")
    with pytest.raises(MedGroundError, match="no candidate"):
        export_released(tmp_path / "out", "direct", sources(marked), tmp_path / "own.json")
    assert not (tmp_path / "own.json").exists()


def test_essence_is_the_same_for_both_orders_of_lvlms(phantoms: Path, tmp_path: Path) -> None:
    for order in (("one", "two"), ("two", "one")):
        for key in order:
            run(Whimsical(key), phantoms, tmp_path / "".join(order))
    assert [essence(line) for line in lines(tmp_path / "onetwo")] == [
        essence(line) for line in lines(tmp_path / "twoone")
    ]
