"""RadEdit's laws on tiny networks built from config, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from medground_bench.causal.editors import EditRequest, load_editor  # noqa: E402
from medground_bench.causal.editors.diffusion import Schedule, invert, reverse  # noqa: E402
from medground_bench.causal.editors.parts import Parts, default_scheduler  # noqa: E402
from medground_bench.causal.editors.radedit import RadEditEditor, _Work  # noqa: E402
from medground_bench.core.errors import EditorError, MedGroundError  # noqa: E402
from tests.causal.editors.tiny import bert_tokenizer, save_parts, tiny_networks  # noqa: E402

PROMPT = "No pleural effusion"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    return Parts(**tiny_networks(), tokenizer=bert_tokenizer(tmp_path_factory.mktemp("vocab")))


def editor(parts: Parts, **settings: Any) -> RadEditEditor:
    return RadEditEditor.from_parts(parts, **{"size": 64, "steps": 10, "guidance": 2.0, **settings})


def radiograph(width: int = 77, height: int = 51, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (7, 9)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def box_mask(image: Image.Image, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(image.size[::-1], bool)
    mask[y1:y2, x1:x2] = True
    return mask


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.int64)


# -- laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip_ratio", [0.0, 0.3, 0.95])
def test_empty_prompt_with_weight_one_gives_back_the_round_trip(parts: Parts, skip_ratio: float) -> None:
    image = radiograph()
    everything = np.ones(image.size[::-1], bool)
    radedit = editor(parts, guidance=1.0, skip_ratio=skip_ratio, steps=20)
    edited = radedit.edit(image, everything, "", seed=5)
    # At the very noisiest step 1 / sqrt(a_t) is 158: float32 rounding of the network is seen, if nothing is skipped.
    assert np.abs(array(edited) - array(radedit.round_trip(image))).max() <= (1 if skip_ratio else 3)
    prompted = radedit.edit(image, everything, PROMPT, seed=5)
    assert np.abs(array(prompted) - array(edited)).max() > 5  # the prompt does something, so the law is not empty


def test_inversion_is_exact_without_any_pasting(parts: Parts) -> None:
    schedule = Schedule.of(default_scheduler(), 13, 0.3)  # 13 does not divide the 1000 training steps
    x0 = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    empty = parts.embed("")
    trajectories = invert(parts.predict, schedule, x0, empty, [7, 8])
    text = empty.expand(2, -1, -1)
    out = reverse(parts.predict, schedule, trajectories, text, empty, 1.0, torch.ones(2, 1, 8, 8), None)
    assert torch.allclose(out, x0, atol=1e-4)
    # Each x_t is an independent draw around sqrt(a_t) x_0: neighbours are not correlated as in an ordinary chain.
    first, second = (t.latents[0] - schedule.alphas[0] ** 0.5 * t.latents[-1] for t in trajectories)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.2


def test_the_kept_latents_are_the_round_trips(parts: Parts) -> None:
    image = radiograph()
    mask = box_mask(image, 10, 8, 40, 30)
    radedit = editor(parts, guidance=7.5)
    edit, keep = radedit.latent_masks(mask)
    with torch.inference_mode():
        requests, work = [EditRequest(image, mask, PROMPT, 3)], _Work(1, 1, None)
        inverted = radedit._invert(requests, work)
        latents = radedit._reverse(requests, inverted, edit[None], work)[0]
    untouched = inverted[0].trajectory.latents[-1]
    assert torch.equal(latents[:, keep], untouched[:, keep])
    assert (latents[:, edit] - untouched[:, edit]).abs().max() > 0.1


def test_the_kept_pixels_are_the_round_trips_away_from_the_edit(parts: Parts) -> None:
    image = radiograph(96, 96)
    mask = box_mask(image, 0, 0, 32, 32)
    radedit = editor(parts, size=96, guidance=7.5)
    change = np.abs(array(radedit.edit(image, mask, PROMPT, 3)) - array(radedit.round_trip(image)))
    assert change[mask].mean() > 5
    assert change[64:].max() == 0  # four cells of 8 pixels away, although this decoder's attention is global
    assert change[:, 64:].max() == 0
    assert change[32:48, :48].max() > 0  # near the edit the decoded image is left as it is: no hard seam


def test_an_empty_keep_mask_equals_none(parts: Parts) -> None:
    schedule = Schedule.of(default_scheduler(), 10, 0.3)
    x0 = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    empty, text = parts.embed(""), parts.embed(PROMPT)
    trajectories = invert(parts.predict, schedule, x0, empty, [7])
    edit = torch.ones(1, 1, 8, 8)
    arguments = (parts.predict, schedule, trajectories, text, empty, 3.0, edit)
    assert torch.equal(reverse(*arguments, torch.zeros_like(edit)), reverse(*arguments, None))
    assert torch.equal(reverse(*arguments, torch.ones_like(edit)), x0)


def test_guidance_acts_inside_the_edit_mask_only(parts: Parts) -> None:
    schedule = Schedule.of(default_scheduler(), 1, 0.0)  # one step: nothing can travel from cell to cell afterwards
    x0 = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    empty, text = parts.embed(""), parts.embed(PROMPT)
    trajectories = invert(parts.predict, schedule, x0, empty, [7])
    edit = torch.zeros(1, 1, 8, 8)
    edit[..., :4] = 1
    out = reverse(parts.predict, schedule, trajectories, text, empty, 5.0, edit, None)
    assert torch.allclose(out[..., 4:], x0[..., 4:], atol=1e-3)
    assert (out[..., :4] - x0[..., :4]).abs().max() > 0.05


def test_the_same_seed_gives_the_same_image_and_another_another(parts: Parts) -> None:
    image = radiograph()
    mask = box_mask(image, 20, 10, 60, 40)
    first = editor(parts).edit(image, mask, PROMPT, 3)
    assert np.array_equal(array(first), array(editor(parts).edit(image, mask, PROMPT, 3)))
    assert not np.array_equal(array(first), array(editor(parts).edit(image, mask, PROMPT, 4)))
    assert np.array_equal(array(first), array(editor(parts, seed_offset=1).edit(image, mask, PROMPT, 2)))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_neighbours_in_the_batch_do_not_matter(parts: Parts, batch_size: int) -> None:
    images = [radiograph(77, 51, 0), radiograph(64, 80, 1), radiograph(40, 40, 2)]
    requests = [
        EditRequest(images[i], box_mask(images[i], 5, 5, 30, 30), prompt, seed)
        for i, prompt, seed in [(0, PROMPT, 1), (1, PROMPT, 1), (0, "No nodule", 1), (2, PROMPT, 9), (1, PROMPT, 2)]
    ]
    together = editor(parts, batch_size=batch_size).edit_batch(requests)
    alone = [editor(parts, batch_size=1).edit_batch([request])[0] for request in requests]
    for a, b in zip(together, alone, strict=True):
        assert np.abs(array(a) - array(b)).max() <= 1  # float rounding may differ between batch shapes


def test_edits_of_one_image_share_its_inversion(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"n": 0}
    predict = Parts.predict

    def counting(self: Parts, *arguments: Any) -> Any:
        calls["n"] += 1
        return predict(self, *arguments)

    monkeypatch.setattr(Parts, "predict", counting)
    image = radiograph()
    mask = box_mask(image, 5, 5, 30, 30)
    radedit = editor(parts, batch_size=1)
    radedit.edit_batch([EditRequest(image, m, PROMPT, 1) for m in (mask, ~mask)])
    steps = 10 - int(10 * 0.3)
    assert calls["n"] == 3 * steps
    radedit.edit(image, mask, "No nodule", 1)
    assert calls["n"] == 4 * steps


def test_an_empty_mask_changes_nothing_and_costs_nothing(parts: Parts) -> None:
    image = radiograph()
    assert np.array_equal(array(editor(parts).edit(image, np.zeros((51, 77), bool), PROMPT, 1)), array(image))


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (201, 7), (63, 65), (512, 511)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_odd_sizes_keep_size_and_mode(parts: Parts, size: tuple[int, int], mode: str) -> None:
    image = radiograph(*size).convert(mode)
    mask = np.zeros(size[::-1], bool)
    mask[: (size[1] + 1) // 2] = True
    radedit = editor(parts, steps=4, keep_pixels=True)
    edited = radedit.edit(image, mask, PROMPT, 1)
    assert (edited.size, edited.mode) == (size, mode)
    assert np.array_equal(array(edited)[~mask], array(image)[~mask])


def test_masks_on_the_latent_grid(parts: Parts) -> None:
    radedit = editor(parts)
    mask = np.zeros((64, 64), bool)
    mask[16:32, 8:24] = True
    edit, keep = radedit.latent_masks(mask)
    expected = np.zeros((8, 8), bool)
    expected[2:4, 1:3] = True
    assert np.array_equal(edit, expected)
    assert np.array_equal(keep, ~expected)
    # A mask and its complement are complements on the grid, but for the padding, which is always kept.
    wide = np.zeros((32, 64), bool)
    wide[8:24, 16:40] = True
    inside, outside = radedit.latent_masks(wide)[0], radedit.latent_masks(~wide)[0]
    assert not (inside & outside).any()
    assert (inside | outside)[2:6].all()
    assert not (inside | outside)[[0, 1, 6, 7]].any()
    # Regions smaller than half a cell are not lost.
    dot = np.zeros((64, 64), bool)
    dot[33, 50] = True
    assert np.argwhere(radedit.latent_masks(dot)[0]).tolist() == [[4, 6]]
    assert np.argwhere(radedit.latent_masks(~dot)[1]).tolist() == [[4, 6]]


def test_progress_is_reported(parts: Parts) -> None:
    seen: list[tuple[int, int]] = []
    image = radiograph()
    requests = [EditRequest(image, box_mask(image, 5, 5, 30, 30), p, 1) for p in (PROMPT, "No nodule")]
    radedit = editor(parts, steps=4, skip_ratio=0.0)
    radedit.edit_batch(requests, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][1] == 2 * 4 * 2
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_bfloat16_keeps_the_vae_in_float32(tmp_path: Path) -> None:
    folder = str(save_parts(tmp_path))
    radedit = load_editor("radedit", unet=folder, vae=folder, text_encoder=folder, size=64, steps=4, dtype="bfloat16")
    assert isinstance(radedit, RadEditEditor)
    assert radedit.parts.unet.dtype == torch.bfloat16
    assert radedit.parts.vae.dtype == torch.float32
    image = radiograph()
    edited = radedit.edit(image, box_mask(image, 5, 5, 60, 45), PROMPT, 1)
    assert array(edited).std() > 1


# -- failures --------------------------------------------------------------------------------------------------------


def test_a_broken_vae_is_an_error_not_a_black_image(tmp_path: Path) -> None:
    networks = tiny_networks()
    torch.nn.init.constant_(networks["vae"].decoder.conv_out.bias, float("nan"))
    broken = editor(Parts(**networks, tokenizer=bert_tokenizer(tmp_path)), steps=2)
    image = radiograph()
    with pytest.raises(EditorError, match="not finite"):
        broken.edit(image, box_mask(image, 5, 5, 30, 30), PROMPT, 1)
    torch.nn.init.constant_(networks["vae"].decoder.conv_out.bias, -50.0)
    with pytest.raises(EditorError, match="black"):
        broken.edit(image, box_mask(image, 5, 5, 30, 30), PROMPT, 1)


def test_one_failed_edit_leaves_its_neighbours_alone(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    radedit = editor(parts, steps=2)
    finish = RadEditEditor._finish

    def failing(self: RadEditEditor, request: EditRequest, latent: Any, *rest: Any) -> Any:
        return finish(self, request, latent * float("nan") if request.seed == 13 else latent, *rest)

    monkeypatch.setattr(RadEditEditor, "_finish", failing)
    image = radiograph()
    mask = box_mask(image, 5, 5, 30, 30)
    outcomes = radedit.edit_batch([EditRequest(image, mask, PROMPT, seed) for seed in (1, 13, 2)])
    assert [isinstance(o, EditorError) for o in outcomes] == [False, True, False]


def test_remote_code_only_with_permission(tmp_path: Path) -> None:
    folder = save_parts(tmp_path)
    config = folder / "text_encoder" / "config.json"
    content = json.loads(config.read_text())
    content["auto_map"] = {"AutoModel": "evil.Evil"}
    config.write_text(json.dumps(content))
    (folder / "text_encoder" / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(EditorError, match="code of its own") as info:
        load_editor("radedit", unet=str(folder), vae=str(folder), text_encoder=str(folder), size=64)
    assert "allow_remote_code=true" in str(info.value)


@pytest.mark.parametrize("missing", ["unet", "vae", "text_encoder"])
def test_missing_parts_are_named(tmp_path: Path, missing: str) -> None:
    folder = str(save_parts(tmp_path / "parts"))
    locations = {"unet": folder, "vae": folder, "text_encoder": folder, missing: str(tmp_path / "nowhere")}
    with pytest.raises(EditorError, match="cannot be loaded") as info:
        load_editor("radedit", size=64, **locations)
    assert "nowhere" in str(info.value)
    assert f"{missing}=DIR" in str(info.value)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EditorError, match="text encoder gives 32 numbers"):
        Parts(**tiny_networks(hidden=48), tokenizer=bert_tokenizer(tmp_path))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("size", 60),
        ("size", 0),
        ("steps", 0),
        ("steps", 1001),
        ("guidance", float("nan")),
        ("skip_ratio", 1.0),
        ("batch_size", 0),
    ],
)
def test_settings_out_of_range(parts: Parts, setting: str, value: float) -> None:
    with pytest.raises(EditorError):
        editor(parts, **{setting: value})


def test_an_image_and_mask_that_do_not_fit(parts: Parts) -> None:
    image = radiograph()
    with pytest.raises(EditorError, match="shape"):
        editor(parts).edit(image, np.ones((77, 51), bool), PROMPT)
    with pytest.raises(EditorError, match="bool"):
        editor(parts).edit(image, np.ones((51, 77), np.uint8), PROMPT)
    with pytest.raises(MedGroundError):
        editor(parts).edit(image.convert("I"), np.ones((51, 77), bool), PROMPT)
