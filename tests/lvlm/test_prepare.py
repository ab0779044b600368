"""Episodes: where the response, its rows and the image tokens are, on both families."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, testing, whitebox
from medground_bench.lvlm.text import random_words, response_tokens

QUESTION = question("pleural effusion", "direct")
RESPONSES = ["Yes", "Yes\n", "Yes.\n\n", " \n Yes", "\nNo", "größer 中 ✓ fine", "The lungs are clear. No\t"]


@pytest.fixture(scope="module", params=["tiny_qwen", "tiny_gemma"])
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    return request.getfixturevalue(request.param)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8))


def all_log_probs(lvlm: Lvlm, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return lvlm.model(**inputs).logits[0].log_softmax(-1)


# -- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", RESPONSES)
def test_tokens_are_the_response_and_nothing_else(lvlm: Lvlm, response: str) -> None:
    episode = lvlm.prepare(noise(60, 50), QUESTION, response)
    ids = episode.inputs["input_ids"][0].tolist()
    assert "".join(token.text for token in episode.tokens) == response
    assert tuple(ids[-len(episode.tokens) :]) == episode.token_ids  # nothing of the template follows
    start = len(ids) - len(episode.tokens)
    assert episode.rows == tuple(range(start - 1, len(ids) - 1))
    assert lvlm.processor.tokenizer.decode(ids[start:], clean_up_tokenization_spaces=False) == response


def test_prompt_is_what_the_processor_makes(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(60, 50), QUESTION, "Yes")
    chat = [
        {"role": "user", "content": [{"type": "image", "image": episode.frame}, {"type": "text", "text": QUESTION}]}
    ]
    plain = lvlm.processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    length = plain["input_ids"].shape[1]
    for name, value in episode.inputs.items():
        expected = plain[name]
        assert torch.equal(value[:, :length] if value.shape[-1] == episode.length else value, expected), name
    assert set(episode.inputs) == set(plain)


def test_type_ids_mark_the_image_and_matter(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(60, 50), QUESTION, "Yes")
    (name,) = {"token_type_ids", "mm_token_type_ids"} & set(episode.inputs)
    assert episode.inputs[name][0].nonzero()[:, 0].tolist() == list(episode.image_positions)
    without = {k: v for k, v in episode.inputs.items() if k != name}
    lvlm.model.model.rope_deltas = None
    assert not torch.allclose(all_log_probs(lvlm, dict(episode.inputs)), all_log_probs(lvlm, without), atol=1e-4)


def test_rows_predict_their_tokens_by_brute_force(lvlm: Lvlm) -> None:
    """Change one token of the response: the rows from its own position on move; the one before predicts it."""
    episode = lvlm.prepare(noise(60, 50), QUESTION, "The answer is yes.\n")
    base = all_log_probs(lvlm, dict(episode.inputs))
    for i, row in enumerate(episode.rows):
        ids = episode.inputs["input_ids"].clone()
        ids[0, -len(episode.tokens) + i] = (episode.tokens[i].id + 7) % 200 + 20
        moved = all_log_probs(lvlm, {**episode.inputs, "input_ids": ids})
        changed = (moved - base).abs().amax(-1).gt(1e-4).nonzero()[:, 0].tolist()
        assert changed[0] == row + 1
        assert changed == list(range(row + 1, episode.length))


def test_a_token_of_several_bytes_keeps_the_pieces_in_order(lvlm: Lvlm) -> None:
    pieces = [token.text for token in response_tokens(lvlm.processor.tokenizer, "a中b")]
    assert "".join(pieces) == "a中b"
    assert "" in pieces  # the byte-level tokenizer of the tiny models splits the character


# -- image tokens --------------------------------------------------------------------------------------------------


def test_golden_patch_order(tiny_qwen: Lvlm, shared_data: Path) -> None:
    orders = json.loads((shared_data / "golden" / "qwen_patch_order.json").read_text())
    found = 0
    for name, order in orders.items():
        if not name.startswith("g"):
            continue
        found += 1
        rows, cols = (int(v) for v in name[1:].split("x"))
        index = np.arange(rows * cols).reshape(rows, cols)
        # Colour (high byte, low byte) of each patch names its row and column.
        image = np.zeros((rows * 14, cols * 14, 3), np.uint8)
        image[..., 0] = np.kron(index // 256, np.ones((14, 14)))
        image[..., 1] = np.kron(index % 256, np.ones((14, 14)))
        episode = tiny_qwen.prepare(Image.fromarray(image), QUESTION, "Yes", side=None)
        assert episode.inputs["image_grid_thw"].tolist() == [[1, rows, cols]]
        ip = tiny_qwen.processor.image_processor
        patches = episode.inputs["pixel_values"].reshape(rows * cols, 3, 2, 14 * 14)
        assert patches.amax(-1).equal(patches.amin(-1))  # each holds one constant
        mean, std = np.array(ip.image_mean), np.array(ip.image_std)
        values = np.rint((patches[:, :, 0, 0].numpy() * std + mean) * 255).astype(int)
        where = values[:, 0] * 256 + values[:, 1]
        assert [[int(w // cols), int(w % cols)] for w in where] == [list(rc) for rc in order]
    assert found


@pytest.mark.parametrize("size", [(224, 224), (640, 512), (512, 640)])
def test_every_token_maps_to_its_pixels(lvlm: Lvlm, size: tuple[int, int]) -> None:
    """Each cell gets a different constant; undoing the processor puts it back where the grid says."""
    probe = lvlm.prepare(Image.new("L", size), QUESTION, "Yes", side=None)
    count = len(probe.grid)
    colours = np.stack([np.arange(count) % 16 * 17, np.arange(count) // 16 * 8 % 256, np.full(count, 90)], axis=-1)
    frame = colours[probe.grid.to_frame(np.arange(count)).astype(int)].astype(np.uint8)
    episode = lvlm.prepare(Image.fromarray(frame), QUESTION, "Yes", side=None)
    assert episode.grid == probe.grid
    assert episode.grid.frame_size == size
    assert len(episode.image_positions) == count
    image = whitebox.pixel_map(lvlm, episode, episode.inputs["pixel_values"]).numpy()
    height, width = image.shape[1:]
    ip = lvlm.processor.image_processor
    copies = lvlm.adapter.to_image(lvlm.config, episode.inputs["pixel_values"], episode.inputs).shape[0]
    image = (image / copies * np.reshape(ip.image_std, (3, 1, 1)) + np.reshape(ip.image_mean, (3, 1, 1))) * 255
    for i in range(count):  # the middle of each cell, away from the blur of resizing
        x1, y1, x2, y2 = episode.grid.cell_box(i)
        x, y = int((x1 + x2) / 2 / size[0] * width), int((y1 + y2) / 2 / size[1] * height)
        np.testing.assert_allclose(image[:, y, x], colours[i], atol=2.5)


def test_every_token_of_the_model_reads_its_own_cell(lvlm: Lvlm) -> None:
    """Through the real vision tower, attention silenced: binary codes over images give each token's cell back."""
    local = getattr(testing, lvlm.key)()
    for name, weight in local.model.named_parameters():
        if ("visual.blocks" in name and ".attn.proj." in name) or ("vision_tower" in name and "out_proj" in name):
            torch.nn.init.zeros_(weight)
    for size in ((224, 224), (640, 512)):
        episode = local.prepare(Image.new("L", size), QUESTION, "Yes", side=None)
        count = len(episode.grid)
        owner = episode.grid.to_frame(np.arange(count)).astype(int)
        bits = int(np.ceil(np.log2(count)))
        images = [np.zeros_like(owner), np.ones_like(owner), *[(owner >> k) & 1 for k in range(bits)]]
        stack = (np.stack(images) * 255).astype(np.uint8)
        with torch.no_grad():
            features = whitebox.image_features(local, local.pixel_inputs(episode, stack), len(stack))
        black, white, coded = features[0], features[1], features[2:]
        ones = (coded - white).norm(dim=-1) < (coded - black).norm(dim=-1)  # (bits, P)
        decoded = (ones.long() * (2 ** torch.arange(bits))[:, None]).sum(0)
        assert decoded.tolist() == list(range(count))


@pytest.mark.parametrize("size", [(224, 224), (640, 512)])
def test_a_planted_change_is_seen_at_its_token(lvlm: Lvlm, size: tuple[int, int]) -> None:
    image = noise(*size, seed=5)
    episode = lvlm.prepare(image, QUESTION, "Yes", side=None)
    rng = np.random.default_rng(1)
    chosen = [int(t) for t in rng.choice(len(episode.grid), 8, replace=False)]
    stack = np.stack([episode.frame_array] * (1 + len(chosen)))
    for k, token in enumerate(chosen, start=1):
        x1, y1, x2, y2 = (round(v) for v in episode.grid.cell_box(token))
        stack[k, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = 255 * (k % 2)
    with torch.no_grad():
        merged = whitebox.merged_embeddings(lvlm, episode, lvlm.pixel_inputs(episode, stack), len(stack))
    at_tokens = merged[:, list(episode.image_positions)]
    change = (at_tokens[1:] - at_tokens[:1]).norm(dim=-1)
    assert change.argmax(dim=-1).tolist() == chosen
    text = [p for p in range(episode.length) if p not in set(episode.image_positions)]
    assert torch.equal(merged[1:, text], merged[:1, text].expand(len(chosen), -1, -1))


# -- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  \n "])
def test_empty_texts(lvlm: Lvlm, text: str) -> None:
    with pytest.raises(LvlmError, match="question is empty"):
        lvlm.prepare(noise(60, 50), text, "Yes")
    with pytest.raises(LvlmError, match="response is empty"):
        lvlm.prepare(noise(60, 50), QUESTION, text)


def test_control_tokens_are_refused(lvlm: Lvlm) -> None:
    token = lvlm.processor.tokenizer.convert_ids_to_tokens(lvlm.adapter.image_token_id(lvlm.config))
    with pytest.raises(LvlmError, match="control token"):
        lvlm.prepare(noise(60, 50), f"Is there {token}?", "Yes")
    with pytest.raises(LvlmError, match="control token"):
        lvlm.prepare(noise(60, 50), QUESTION, "Yes" + lvlm.processor.tokenizer.eos_token)


def test_a_response_beyond_the_context(lvlm: Lvlm) -> None:
    with pytest.raises(LvlmError, match="context") as caught:
        lvlm.prepare(noise(60, 50), QUESTION, "yes " * 3000)
    assert str(lvlm.context_length) in str(caught.value)


def test_an_image_of_one_pixel(lvlm: Lvlm) -> None:
    for side in (224, None):
        episode = lvlm.prepare(Image.new("L", (1, 1), 200), QUESTION, "Yes", side=side)
        scores = lvlm.log_probs(episode, [episode.frame, Image.new("L", (1, 1))])
        assert np.isfinite(scores).all()
        assert scores.shape == (2, 1)


def test_an_image_the_processor_cannot_take(tiny_qwen: Lvlm) -> None:
    thin = Image.new("L", (2, 600))
    with pytest.raises(LvlmError, match="2x600"):
        tiny_qwen.prepare(thin, QUESTION, "Yes", side=None)
    assert tiny_qwen.prepare(thin, QUESTION, "Yes").grid.rows == 8  # letterboxed it is fine


def test_native_to_token_and_back(lvlm: Lvlm) -> None:
    episode = lvlm.prepare(noise(400, 200), QUESTION, "Yes")
    ((x1, y1, x2, y2),) = episode.letterbox.to_frame([(380, 180, 400, 200)])
    token = episode.grid.token_at((x1 + x2) / 2, (y1 + y2) / 2)
    (back,) = episode.letterbox.to_native([episode.grid.cell_box(token)])
    assert back[0] <= 390 < back[2]
    assert back[1] <= 190 < back[3]


@pytest.mark.parametrize("family", ["tiny_qwen", "tiny_gemma"])
def test_random_words_have_as_many_tokens(family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(family).processor.tokenizer
    for seed, count in enumerate((1, 2, 3, 9)):
        words = random_words(tokenizer, count, np.random.default_rng(seed))
        assert words is not None
        assert len(response_tokens(tokenizer, words)) == count
        assert not {"yes", "no"} & set(words.lower().split())
    drawn = {random_words(tokenizer, 2, np.random.default_rng(seed)) for seed in range(8)}
    assert len(drawn) > 4
