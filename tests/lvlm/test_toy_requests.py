"""``toy_prompted``: what it is taught is what the prompting methods ask and read, and it points at the finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("medfocus")

from PIL import Image

from baselines.prompting.som_prompting import som_prompting
from baselines.shared.marks import read_numbers
from baselines.shared.replies import read_boxes, read_phrases
from builder_scripts.toy_lvlm import training
from builder_scripts.toy_lvlm.data import GROUP, Pool, open_pool, render_pool
from builder_scripts.toy_lvlm.evaluation import answers, measure_requests, unseen_phantoms
from builder_scripts.toy_lvlm.forward import ToyForward
from builder_scripts.toy_lvlm.requests import (
    LEVELS,
    boxes_reply,
    chest_parts,
    evidence_boxes,
    marks_reply,
    numbered,
    phrases_reply,
    request_corpus,
    request_prompt,
)
from builder_scripts.toy_lvlm.storage import load
from builder_scripts.toy_lvlm.text import place_case
from builder_scripts.toy_lvlm.training import Recipe
from builder_scripts.toy_lvlm.upgrade import with_words
from medground_bench.core.schema import question
from medground_bench.lvlm import Generated, load_lvlm
from medground_bench.lvlm.text import encode_prompts
from medground_bench.lvlm.toy import TOYS
from medground_bench.sources.phantom import sample_phantom


@pytest.fixture(scope="module")
def lvlm() -> Any:
    return load_lvlm("toy_prompted", device="cpu")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pool, Any]:
    """Four chests, and their parts."""
    folder = tmp_path_factory.mktemp("pool")
    render_pool(folder, 4, None, folder / "localisations", seed=5)
    rendered = open_pool(folder)
    parts = chest_parts(folder, rendered, load_lvlm("toy_gemma", device="cpu"))
    kept = Path(folder / "parts.npy")
    again = chest_parts(folder, rendered, None)  # read, not found again
    assert kept.exists()
    assert np.array_equal(parts, again)
    return rendered, parts


# Replies -----------------------------------------------------------------------------------------------------------


def test_replies_are_what_the_methods_read() -> None:
    shares = np.zeros((32, 32), np.uint8)
    shares[8:12, 4:6] = 255
    case = place_case("lung mass", "right", "upper")
    boxes = evidence_boxes(shares, "lung mass", case)
    np.testing.assert_array_equal(boxes, [(4, 8, 6, 12)])
    assert boxes_reply(boxes) == "[[125, 250, 188, 375]]"
    assert [box.values for box in read_boxes(boxes_reply(boxes))] == [(125, 250, 188, 375)]
    assert read_phrases(phrases_reply("lung mass", case), 8) == ["a lung mass in the right lung"]
    shares[8:12, 26:30] = 255
    both = evidence_boxes(shares, "pleural effusion", place_case("pleural effusion", "both", None))
    np.testing.assert_array_equal(both, [(4, 8, 6, 12), (26, 8, 30, 12)])
    numbers = np.zeros((224, 224), np.uint8)
    numbers[:, :70], numbers[:, 150:] = 1, 2  # a third of the evidence is in the first region, two in the second
    assert read_numbers(marks_reply(shares, numbers), 2) == ([2, 1], 0)
    numbers[:, :35] = 3  # of the first region's half, a sixth of the evidence each: too little to be named
    assert marks_reply(shares, numbers) == "[2]"
    assert marks_reply(shares, np.zeros_like(numbers)) == "[]"


def test_every_number_of_a_reply_is_one_token(lvlm: Any) -> None:
    tokenizer = lvlm.processor.tokenizer
    for text in (*map(str, LEVELS), *(f" {level}" for level in LEVELS), *"1234567"):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == 1
    prompt = tokenizer(request_prompt("boxes"), add_special_tokens=False)["input_ids"]
    assert len(prompt) < 0.8 * len(load_lvlm("toy_gemma").processor.tokenizer(request_prompt("boxes"))["input_ids"])


def test_more_words_change_no_answer() -> None:
    old, new = load(TOYS["toy_gemma"]), with_words(TOYS["toy_gemma"], request_corpus())
    assert len(new[1].tokenizer) > len(old[1].tokenizer)
    image = np.array(sample_phantom(11, size=224).image)
    asked = [question("nodule", "direct"), question("pleural effusion", "reason")]
    assert answers(*old, [image] * 2, asked) == answers(*new, [image] * 2, asked)


# Teaching ----------------------------------------------------------------------------------------------------------


def test_a_request_is_taught_in_the_words_that_the_lvlm_gets(lvlm: Any) -> None:
    forward = ToyForward(*load(TOYS["toy_prompted"]))
    turns = [question("nodule", "direct"), "Yes", request_prompt("boxes")]
    ids, _ = forward.conversations.branch(turns, "")
    frame = Image.new("RGB", (224, 224))
    asked = encode_prompts(lvlm.processor, lvlm.adapter, [frame], [turns])["input_ids"][0].tolist()
    assert asked == [*forward.conversations.prefix.tolist(), *ids]


def test_marks_are_taught_on_the_picture_that_the_method_shows(
    pool: tuple[Pool, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered, parts = pool
    first = np.arange(len(rendered)) // GROUP * GROUP  # whose parts are known
    alike = Pool(rendered.frames[first], rendered.shares[first], rendered.cases[first])
    monkeypatch.setattr(training, "HELD_OUT", 0)
    monkeypatch.setattr(training._Pose, "draw", lambda *_: training._Pose(0.0, 1.0, (0.0, 0.0), False))
    monkeypatch.setattr(training._Sampler, "_levels", lambda self: np.arange(256, dtype=np.uint8))
    taught = training._Sampler(alike, Recipe(batch=2, cutouts=0.0, requests=1, marked=1.0), parts).batch(1, 1).frames[0]
    frame = max(alike.frames, key=lambda one: (one == taught[..., 0]).mean())
    rows, cols = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    lvlm = load_lvlm("toy_gemma", device="cpu")
    shown: list[Any] = []

    def generate(images: Any, *_: Any, **__: Any) -> list[Generated]:
        shown.extend(images)
        return [Generated("[1]")]

    monkeypatch.setattr(lvlm, "generate", generate)
    content = Image.fromarray(frame[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])
    som_prompting.run(lvlm, lvlm.prepare(content, question("nodule", "direct"), "Yes"))
    assert np.array_equal(np.asarray(shown[0]), taught)
    assert (taught != frame[..., None]).any(-1).mean() > 0.005


def test_a_mirrored_chest_has_its_marks_on_the_other_side(pool: tuple[Pool, Any]) -> None:
    parts = pool[1]
    plain, flipped = (
        training._posed_parts(parts[0], training._Pose(0.0, 1.0, (0.0, 0.0), flip)) for flip in (False, True)
    )
    assert np.array_equal(plain, parts[0])
    assert ((plain[:, ::-1] == 0) == (flipped == 3)).all()  # right upper third, left upper third
    assert ((plain == 6)[:, ::-1] == (flipped == 6)).all()
    numbers, count = numbered(np.where(plain == 0, 255, plain).astype(np.uint8))
    assert count == 6
    assert (numbers == 1).sum() == (plain == 1).sum()


@pytest.mark.heavy
def test_a_few_steps_teach_requests(pool: tuple[Pool, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "HELD_OUT", 1)
    model, processor = with_words(TOYS["toy_gemma"], request_corpus())
    recipe = Recipe(
        **{**training.PROMPTED, "vision_steps": 2, "steps": 4, "batch": 4, "rate": 0.1, "vision_rate": 0.01}
    )
    told: list[dict[str, float]] = []
    training.train(
        model, processor, lambda: pool[0], recipe, lambda _, figures: told.append(figures), None, 2, lambda: pool[1]
    )
    assert set(told[0]) > {"dense", "place", "extent", "seeing auc"}
    assert told[2]["requests"] < told[1]["requests"]
    assert 0 <= told[2]["boxes iou"] <= 1
    assert 0 <= told[2]["marks right"] <= 1


# The shipped toy -----------------------------------------------------------------------------------------------------


@pytest.mark.heavy
def test_boxes_and_marks_point_at_the_finding(lvlm: Any) -> None:
    """The small version of the table on the model card."""
    asked = measure_requests(lvlm, unseen_phantoms(12, 940_000_000))
    figures = asked.figures()
    assert len(asked.boxes) >= 12, figures
    assert figures["replies with boxes"] > 0.9
    assert figures["replies with marks"] > 0.9
    assert figures["IoU"] > 1.5 * figures["IoU of the boxes stated for the next finding"]
    assert figures["IoU"] > 1.5 * figures["IoU of `centre_prior`"]
    assert figures["first mark holds the most"] > 1.5 * figures["a random mark would hold the most"]


def test_requests_are_answered_in_their_format(lvlm: Any) -> None:
    phantom = sample_phantom(950_000_000, size=224, findings=["lung mass"])
    image = Image.fromarray(phantom.image)
    turns = [question("lung mass", "direct"), "Yes"]
    replies = {
        kind: lvlm.generate([image], [[*turns, request_prompt(kind)]], max_new_tokens=32)[0].text
        for kind in ("boxes", "phrases")
    }
    assert 1 <= len(read_boxes(replies["boxes"])) <= 2, replies
    assert len(read_phrases(replies["phrases"], 8)) == 1, replies
