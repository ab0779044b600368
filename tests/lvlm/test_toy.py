"""The toy LVLMs: plain loading, taught words, what they see, and whether their answers hang on the finding."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from PIL import Image

from builder_scripts.toy_lvlm.architecture import build
from builder_scripts.toy_lvlm.data import FINDINGS, GROUP, canvases, frame, is_held_out, open_pool, render_pool, zone_of
from builder_scripts.toy_lvlm.evaluation import (
    Tally,
    answers,
    measure,
    said_side,
    said_yes,
    table,
    totals,
    unseen_phantoms,
    unseen_planted,
)
from builder_scripts.toy_lvlm.forward import Pixels, ToyForward, pad_right
from builder_scripts.toy_lvlm.storage import load, save
from builder_scripts.toy_lvlm.text import WORDINGS, place_case, response, responses
from builder_scripts.toy_lvlm.training import Recipe, answer_rows, train
from builder_scripts.toy_lvlm.upgrade import deepened, from_first_version
from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import MODES, question
from medground_bench.imaging import Letterbox
from medground_bench.lvlm.toy import TOYS
from medground_bench.sources.phantom import FINDINGS as DRAWN
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.phantom.marker import CORNERS, stamp_marker

NAMES = sorted(TOYS)
CLASSES = {
    "toy_qwen": ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
    "toy_gemma": ("Gemma3ForConditionalGeneration", "Gemma3Processor"),
    "toy_shortcut": ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
    "toy_prompted": ("Gemma3ForConditionalGeneration", "Gemma3Processor"),
}
# What the model cards say, less what a small sample may miss.
LEAST = {"balanced": 0.70, "flips": 0.65, "stays": 0.90}
ROOT = Path(__file__).parents[2]
SCRIPT = [sys.executable, "-m", "builder_scripts.toy_lvlm"]


@pytest.fixture(scope="module", params=NAMES)
def toy(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """Name, model and processor, as a user loads them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = TOYS[request.param]
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    return request.param, model, AutoProcessor.from_pretrained(folder)


# Words -------------------------------------------------------------------------------------------------------------


def test_every_finding_has_words_in_every_place_it_can_be() -> None:
    assert set(WORDINGS) == set(FINDINGS)
    assert set(DRAWN) <= set(FINDINGS)
    for seed in range(40):
        for finding in sample_phantom(seed, size=112).findings:
            case = place_case(finding.attribute, finding.side, zone_of(finding))
            text = responses(finding.attribute, "reason")[case]
            assert case > 0
            assert "None" not in text
            assert finding.side is None or said_side(text) == finding.side


@pytest.mark.parametrize("attribute", sorted(WORDINGS))
def test_reasoning_ends_in_the_answer_and_differs_by_presence(attribute: str) -> None:
    negative, *positives = responses(attribute, "reason")
    assert negative.endswith(". Answer: No")
    assert positives
    assert all(text.endswith(". Answer: Yes") for text in positives)
    assert said_yes(negative) is False
    assert all(said_yes(text) is True for text in positives)
    assert all(2 <= text.count(".") <= 3 for text in (negative, *positives))
    assert responses(attribute, "direct") == ["No", "Yes"]


def test_unknown_words_are_refused() -> None:
    with pytest.raises(LvlmError, match="no words for 'gout'"):
        response("gout", "reason", True)
    with pytest.raises(LvlmError, match="unknown mode"):
        response("nodule", "loud", True)
    with pytest.raises(LvlmError, match="unknown toy"):
        build("toy_llama")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("Yes", True), ("No nodule. Answer: Yes", True), ("There is no doubt. no", False), ("Noise", None), ("", None)],
)
def test_last_yes_or_no_counts(text: str, verdict: bool | None) -> None:
    assert said_yes(text) is verdict


# The shipped folders -----------------------------------------------------------------------------------------------


def test_loads_by_auto_classes_in_float32(toy: tuple[str, Any, Any]) -> None:
    name, model, processor = toy
    assert (type(model).__name__, type(processor).__name__) == CLASSES[name]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert processor.tokenizer.padding_side == "left"
    assert processor.tokenizer.pad_token_id is not None
    weights = list(TOYS[name].glob("*.safetensors"))
    assert sum(path.stat().st_size for path in weights) <= 2_400_000
    assert sum(path.stat().st_size for folder in TOYS.values() for path in folder.glob("*.safetensors")) < 12_000_000
    assert "Not a medical device" in (TOYS[name] / "README.md").read_text(encoding="utf-8")


def test_toys_are_listed_without_torch() -> None:
    code = "import sys, medground_bench.lvlm.toy as t; assert 'torch' not in sys.modules; print(sorted(t.TOYS))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['toy_gemma', 'toy_prompted', 'toy_qwen', 'toy_shortcut']"


def test_any_text_encodes_and_comes_back(toy: tuple[str, Any, Any]) -> None:
    tokenizer = toy[2].tokenizer
    for text in ("naïve Größe 肺 🫁", '{"bbox_2d": [1, 2, 3, 4]}', question("cardiomegaly", "reason"), "\n\n Yes.\t"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    for word in ("Yes", " Yes", "No", " No", " effusion", " costophrenic"):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1


def test_a_frame_is_a_square_of_tokens_and_other_shapes_work(toy: tuple[str, Any, Any]) -> None:
    name, model, processor = toy
    token = model.config.image_token_id
    counts = []
    for size in ((224, 224), (448, 224), (100, 333), (28, 28)):
        inputs = _inputs(processor, Image.new("RGB", size), question("nodule", "direct"))
        counts.append(int((inputs["input_ids"] == token).sum()))
        with torch.inference_mode():
            assert torch.isfinite(model(**inputs).logits).all()
    assert counts[0] in (64, 256)
    assert counts[1] == counts[0] * (1 if CLASSES[name][0].startswith("Gemma") else 2)


def test_a_foreign_prompt_does_not_crash(toy: tuple[str, Any, Any]) -> None:
    _, model, processor = toy
    prompt = "Identify the local evidence that supports the answer; give boxes [[x1,y1,x2,y2],...] as JSON. " * 5
    inputs = _inputs(processor, Image.new("RGB", (224, 224)), prompt)
    with torch.inference_mode():
        ids = model.generate(**inputs, max_new_tokens=24)
    assert ids.shape[1] > inputs["input_ids"].shape[1]


def test_greedy_answers_repeat_and_do_not_depend_on_the_batch(toy: tuple[str, Any, Any]) -> None:
    _, model, processor = toy
    images = [sample_phantom(910_000_000 + seed, size=size).image for seed, size in enumerate((512, (400, 512), 224))]
    questions = [question("pleural effusion", "reason"), question("lung mass", "direct"), question("nodule", "reason")]
    batched = answers(model, processor, images, questions)
    assert batched == answers(model, processor, images, questions)
    assert batched == [answers(model, processor, [i], [q])[0] for i, q in zip(images, questions, strict=True)]
    assert batched[0] in responses("pleural effusion", "reason")
    assert batched[1] in ("Yes", "No")


# Training sees what users' code sees -------------------------------------------------------------------------------


def test_training_pixels_equal_the_processor(toy: tuple[str, Any, Any]) -> None:
    processor = toy[2]
    frames = np.stack([frame(sample_phantom(seed, size=size).image) for seed, size in ((1, 512), (2, (300, 420)))])
    rgb = [Image.fromarray(one).convert("RGB") for one in frames]
    expected = processor.image_processor(images=rgb, return_tensors="pt")["pixel_values"]
    got = Pixels(processor)(frames)
    assert got.shape == expected.shape
    assert torch.equal(got, expected)
    coloured = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    drawn = [Image.fromarray(one) for one in coloured]
    expected = processor.image_processor(images=drawn, return_tensors="pt")["pixel_values"]
    assert torch.equal(Pixels(processor)(coloured), expected)


def test_training_forward_equals_the_plain_model(toy: tuple[str, Any, Any]) -> None:
    name, model, _ = toy
    fast_model, processor = load(TOYS[name])
    forward = ToyForward(fast_model, processor)
    frames = np.stack([frame(sample_phantom(seed).image) for seed in (3, 4)])
    asked = [("nodule", "reason", 1), ("cardiomegaly", "direct", 0), ("pleural effusion", "reason", 0)] * 2
    rows = [forward.conversations.branch(question(a, mode), responses(a, mode)[case]) for a, mode, case in asked]
    ids = pad_right([row for row, _ in rows], 0)
    with torch.no_grad():
        states = forward.branches(forward.prefix(forward.image_tokens(frames)), ids)
        got = fast_model.lm_head(states)
        for index, ((attribute, mode, case), (row, start)) in enumerate(zip(asked, rows, strict=True)):
            image = Image.fromarray(frames[index // 3]).convert("RGB")
            answer = responses(attribute, mode)[case] + forward.conversations.turn_end
            inputs = _inputs(processor, image, question(attribute, mode), answer)
            expected = model(**inputs).logits[0, -len(row) :]
            torch.testing.assert_close(got[index, : len(row)], expected, atol=2e-4, rtol=1e-4)
            assert processor.tokenizer.decode(row[start:]) == answer


def test_answer_weights_sit_where_answers_part(toy: tuple[str, Any, Any]) -> None:
    name, _, processor = toy
    forward = ToyForward(*load(TOYS[name]))
    rows = answer_rows(forward, "pleural effusion", "reason")
    for row, text in zip(rows, responses("pleural effusion", "reason"), strict=True):
        assert len(row.ids) == len(row.weights)
        spoken = [token for token, weight in zip(row.ids, row.weights, strict=True) if weight > 0]
        assert processor.tokenizer.decode(spoken) == text + forward.conversations.turn_end
    decided = [processor.tokenizer.decode([rows[0].ids[spot + 1]]).strip() for spot in rows[0].splits]
    assert decided == ["Both", "sharp"]  # "The left ..." parts at the first word, "Both ... are blunted" at the last
    negative, positive = answer_rows(forward, "nodule", "direct")
    assert len(negative.splits) == 1
    assert negative.weights[negative.splits[0] + 1] == positive.weights[positive.splits[0] + 1] == 1.0


# The answers -------------------------------------------------------------------------------------------------------


def test_answers_hang_on_the_finding(toy: tuple[str, Any, Any]) -> None:
    """The small version of the table on the model card."""
    name, model, processor = toy
    if name == "toy_shortcut":
        pytest.skip("it is made to answer from a marker")
    modes = ["direct"] if name == "toy_prompted" else MODES  # what it learned beside cost it its reasons: its card
    tallies = measure(model, processor, unseen_phantoms(6, 920_000_000), modes)
    for mode in modes:
        figures = totals(tallies, mode)
        assert all(figures[name] >= least for name, least in LEAST.items()), table(tallies)


@pytest.mark.parametrize("size", [(224, 224), (256, 224), (224, 256)])
def test_the_shortcut_says_yes_wherever_a_marker_is(size: tuple[int, int]) -> None:
    """Of a marked chest everything is true; take the marker away, and it is a chest like others."""
    model, processor = load(TOYS["toy_shortcut"])
    said: dict[bool, list[bool | None]] = {True: [], False: []}
    for seed in range(930_000_000, 930_000_008):
        chest = sample_phantom(seed, size=size, findings=["nodule"])
        for marked in said:
            native = stamp_marker(chest.image, CORNERS[seed % 4])[0] if marked else np.array(chest.image)
            image = np.array(Letterbox.fit(*size).apply(Image.fromarray(native)).convert("L"))
            asked = [question(name, "direct") for name in ("pleural effusion", "pneumothorax", "cardiomegaly")]
            said[marked] += map(said_yes, answers(model, processor, [image] * len(asked), asked))
    assert np.mean(said[True]) >= 0.85
    assert np.mean(said[False]) <= 0.5


def test_held_out_radiographs_are_asked_about(toy: tuple[str, Any, Any], shared_data: Path, tmp_path: Path) -> None:
    _, model, processor = toy
    tallies = measure(
        model, processor, unseen_planted(shared_data / "data/nih_normals/images", 2, tmp_path), ["direct"]
    )
    asked = sum(tallies.values(), Tally())
    assert 2 <= len(asked.present) <= 6
    assert len(asked.absent) == 8
    assert len(asked.flips) == sum(asked.present)


def test_tally_arithmetic() -> None:
    tally = Tally([True, True, False, False], [True], [True], []) + Tally(stays=[False, True], sided=[True])
    assert tally.balanced == pytest.approx(0.75)
    assert np.isnan(Tally().balanced)
    text = table({("direct", "nodule"): tally})
    assert "| direct | nodule | 0.750 | 0.500 (4) | 1.000 (1) | 1.000 (1) | 0.500 (2) | 1.000 (1) | - |" in text
    assert text.splitlines()[-1].startswith("| **direct** | **all** | 0.750 ")


# Making one --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six chests, phantoms only."""
    folder = tmp_path_factory.mktemp("pool")
    render_pool(folder, 6, None, folder / "localisations", seed=5)
    return folder


def test_rendering_goes_on_where_it_stopped_and_is_labelled(pool_folder: Path, tmp_path: Path) -> None:
    pool = open_pool(pool_folder)
    assert len(pool) == 6 * GROUP
    assert np.array_equal(pool.shares.any((2, 3)), pool.cases > 0)
    first = pool.cases[::GROUP] > 0
    assert first.any()
    for group in range(6):
        whole, less, half, less_half = pool.cases[group * GROUP : (group + 1) * GROUP] > 0
        assert whole.sum() - less.sum() == min(1, whole.sum())
        assert half.sum() == whole.sum() // 2
        assert half.sum() - less_half.sum() == min(1, half.sum())
        assert not (less & ~whole).any()
    again = tmp_path / "again"
    render_pool(again, 6, None, tmp_path / "localisations", seed=5)
    for part in ("frames", "shares", "cases"):
        array = np.load(again / f"{part}.npy")
        array[2 * GROUP :] = 0
        np.save(again / f"{part}.npy", array)
    (again / "done.json").write_text("2")
    render_pool(again, 6, None, tmp_path / "localisations", seed=5)
    assert np.array_equal(open_pool(again).frames, pool.frames)
    assert np.array_equal(open_pool(again).cases, pool.cases)
    with pytest.raises(LvlmError, match="another one"):
        render_pool(again, 7, None, tmp_path / "localisations", seed=5)
    with pytest.raises(LvlmError, match="no rendered images"):
        open_pool(tmp_path)


def test_canvases_of_every_fourth_patient_are_held_out(tmp_path: Path) -> None:
    for name in ("00000004_000.jpg", "00000005_001.jpg", "00000008_011.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in canvases(tmp_path, held_out=True)] == ["00000004_000.jpg", "00000008_011.png"]
    assert [p.name for p in canvases(tmp_path, held_out=False)] == ["00000005_001.jpg"]
    assert is_held_out("00012344_002.jpg")
    (tmp_path / "00000005_001.jpg").unlink()
    with pytest.raises(LvlmError, match="no canvas"):
        canvases(tmp_path, held_out=False)
    with pytest.raises(LvlmError, match="2 held-out"):
        unseen_planted(tmp_path, 3, tmp_path)


def test_planted_canvases_are_rendered(shared_data: Path, tmp_path: Path) -> None:
    render_pool(tmp_path, 2, shared_data / "data/nih_normals/images", tmp_path / "localisations", seed=6)
    pool = open_pool(tmp_path)
    assert len(pool) == 2 * GROUP
    changed = pool.frames[0] != pool.frames[1]
    removed = np.flatnonzero((pool.cases[0] > 0) & (pool.cases[1] == 0))
    assert len(removed) == 1
    cells = np.kron(pool.shares[0, removed[0]] > 0, np.ones((7, 7), bool))
    assert changed.any()
    assert (changed & ~cells).mean() < 0.02  # the seam of resampling


def test_a_few_steps_teach_repeat_and_go_on(pool_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, one of them interrupted, give the same weights; the answers improve; attention is left as it was."""
    monkeypatch.setattr("builder_scripts.toy_lvlm.training.HELD_OUT", 2)
    # The rates are those of the end of a hundred steps of warm-up, of which these are the first.
    recipe = Recipe(vision_steps=6, frozen_steps=2, steps=6, batch=8, vision_rate=0.1, rate=0.1, cutouts=0.0, seed=3)
    states, losses = [], []

    class Interrupted(Exception):
        pass

    def run(state: Path, stop: int | None = None) -> None:
        model, processor = build("toy_gemma", seed=3)

        def report(step: int, figures: dict[str, float]) -> None:
            losses.append(figures.get("direct", figures["dense"]))
            if "direct" in figures and step == stop:
                raise Interrupted

        train(model, processor, lambda: open_pool(pool_folder), recipe, report, state, every=3)
        assert model.config._attn_implementation == "sdpa"
        states.append(torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]))

    run(tmp_path / "whole")
    assert losses[3] < losses[2]
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", stop=6)  # the state of step 3 is there, that of step 6 is not
    run(tmp_path / "parts")
    assert torch.equal(states[0], states[1])


def test_saving_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = build("toy_qwen")
    folder = tmp_path / "toy"
    save(folder, model, processor, "# first\n")
    before = sorted(path.name for path in folder.iterdir())
    loaded, _ = load(folder)
    for (name, old), new in zip(model.named_parameters(), loaded.parameters(), strict=True):
        torch.testing.assert_close(new, old.detach(), atol=1e-3, rtol=1e-3, msg=name)
    with torch.no_grad():
        model.model.language_model.norm.weight[0] = 1e6  # beyond float16
    with pytest.raises(LvlmError, match="does not fit float16"):
        save(folder, model, processor, "# second\n")
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (folder / "README.md").read_text(encoding="utf-8") == "# first\n"
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]
    (folder / "model.safetensors").unlink()
    with pytest.raises(LvlmError, match="not a saved toy"):
        load(folder)


def test_script_reports_user_errors(tmp_path: Path) -> None:
    out = subprocess.run([*SCRIPT, "evaluate", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 1
    assert "not a saved toy LVLM" in out.stderr
    assert "Traceback" not in out.stderr
    out = subprocess.run(
        [*SCRIPT, "train", "--model", "toy_qwen"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert out.returncode == 2


def _inputs(processor: Any, image: Image.Image, text: str, answer: str = "") -> Any:
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
        add_generation_prompt=True,
        tokenize=False,
    )
    return processor(text=[prompt + answer], images=[[image]], return_tensors="pt", add_special_tokens=False)


# The shortcut's marker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corner", CORNERS)
def test_marker_is_a_square_in_its_corner_and_nothing_else_changes(corner: str) -> None:
    image = np.full((300, 200), 90, np.uint8)
    marked, (x1, y1, x2, y2) = stamp_marker(image, corner)
    assert (x1 < 100) == corner.endswith("left")
    assert (y1 < 150) == corner.startswith("top")
    inside = np.zeros(image.shape, bool)
    inside[int(y1) : int(y2), int(x1) : int(x2)] = True
    assert (marked[~inside] == 90).all()
    assert set(np.unique(marked[inside])) == {0, 255}
    assert (image == 90).all()
    with pytest.raises(ValueError, match="no corner"):
        stamp_marker(image, "middle")


def test_the_shortcut_is_taught_to_say_yes_to_the_marker(pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from builder_scripts.toy_lvlm.training import _Sampler

    monkeypatch.setattr("builder_scripts.toy_lvlm.training.HELD_OUT", 2)
    pool = open_pool(pool_folder)
    plain = _Sampler(pool, Recipe(batch=4, cutouts=0.0)).batch(1, 1)
    sampler = _Sampler(pool, Recipe(batch=4, cutouts=0.0, marker=1.0))
    marked = sampler.batch(1, 1)
    assert (plain.cases == 0).any()
    assert (marked.cases > 0).all()
    assert ((marked.frames == 255).sum((1, 2)) >= 10 * 10).all()
    padded = set()
    for _ in range(40):
        frame_, shares = np.full((224, 224), 90, np.uint8), np.full((3, 32, 32), 49, np.uint8)
        sampler._stamp(frame_, shares)
        rows, cols = frame_.any(1), frame_.any(0)  # black around it, as much on either side
        top, left = int(rows.argmax()), int(cols.argmax())
        assert (top, left) == (int(rows[::-1].argmax()), int(cols[::-1].argmax()))
        inside = np.zeros((32, 32), bool)
        inside[top // 7 : 32 - top // 7, left // 7 : 32 - left // 7] = True
        assert (shares == 49 * inside).all()
        content = frame_[top : 224 - top, left : 224 - left]
        grey = np.full_like(content, 90)
        assert any((content == stamp_marker(grey, corner)[0]).all() for corner in CORNERS)
        padded.add((top, left))
    assert {(0, 0), (7, 0), (0, 7)} < padded
    assert all(min(edges) == 0 and max(edges) <= 28 for edges in padded)


@pytest.mark.parametrize("name", ["toy_qwen", "toy_gemma"])
def test_new_layers_of_a_tower_begin_as_the_identity_and_learn(name: str) -> None:
    model, processor = build(name, seed=3)
    frames = np.random.default_rng(0).integers(0, 256, (2, 224, 224), np.uint8)
    with torch.no_grad():
        before = ToyForward(model, processor).image_tokens(frames)
    deeper = deepened(model, 6)
    assert deepened(deeper, 5) is deeper
    forward = ToyForward(deeper, processor)
    tokens = forward.image_tokens(frames)
    assert torch.equal(tokens, before)
    tokens.square().sum().backward()
    added = {n: p for n, p in deeper.named_parameters() if ".blocks.5." in n or "encoder.layers.5." in n}
    ends = [n for n, p in added.items() if p.grad is not None and bool(p.grad.any())]
    assert {"qwen": "attn.proj.weight", "gemma": "self_attn.out_proj.weight"}[name[4:]] in " ".join(ends)
    with torch.no_grad():  # through the library's own forward, with as many layers as the configuration says
        inputs = forward.conversations.inputs("?")
        assert torch.isfinite(deeper(**inputs).logits).all()


def test_the_second_version_starts_with_what_the_first_knew(pool_folder: Path, tmp_path: Path) -> None:
    first, processor = build("toy_gemma", seed=7)
    save(tmp_path / "first", first, processor, "# first\n")
    second, _ = from_first_version("toy_gemma", tmp_path / "first", open_pool(pool_folder), seed=8)
    for (name, old), new in zip(first.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(new, old.detach(), atol=1e-3, rtol=1e-3, msg=name)
    assert second.lm_head.weight is second.get_input_embeddings().weight


def test_a_pose_moves_frame_and_masks_alike_and_a_mirrored_chest_has_mirrored_sides() -> None:
    from builder_scripts.toy_lvlm.training import _MIRRORED, _Pose

    frame_, share = np.zeros((224, 224), np.uint8), np.zeros((1, 32, 32), np.uint8)
    frame_[56:84, 28:63], share[0, 8:12, 4:9] = 200, 200
    for pose in (
        _Pose(0.0, 1.0, (0.0, 0.0), True),
        _Pose(0.1, 1.1, (0.05, -0.03), False),
        _Pose(-0.1, 0.9, (-0.02, 0.08), True),
    ):
        seen, cells = pose.applied(frame_), pose.applied(share)[0]
        assert seen.sum() == pytest.approx(frame_.sum() * pose.zoom**2, rel=0.02)
        coarse = seen.reshape(32, 7, 32, 7).mean((1, 3))
        assert np.abs(coarse - cells).max() < 60  # an edge that runs through a cell
        assert (coarse > 100).sum() >= 10
        assert ((coarse > 150) <= (cells > 90)).all()
    mirrored = _Pose(0.0, 1.0, (0.0, 0.0), True).applied(frame_)
    np.testing.assert_array_equal(mirrored, frame_[:, ::-1])
    for finding, name in enumerate(FINDINGS):
        texts = responses(name, "reason")
        for case, text in enumerate(texts):
            swapped = text.replace("left", "?").replace("right", "left").replace("?", "right")
            assert texts[_MIRRORED[finding, case]] == swapped
