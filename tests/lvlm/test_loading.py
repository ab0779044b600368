"""Loading: round trips, provenance, and every way in which it can fail."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError, MissingDependencyError
from medground_bench.core.schema import LVLMS
from medground_bench.lvlm import Lvlm, load_lvlm, testing

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lvlms")
    return {
        "tiny_qwen": testing.save_parts(*testing.tiny_qwen_parts(), root / "tiny_qwen"),
        "tiny_gemma": testing.save_parts(*testing.tiny_gemma_parts(), root / "tiny_gemma"),
    }


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders["tiny_qwen"], tmp_path / "model"))


@pytest.mark.parametrize("name", ["tiny_qwen", "tiny_gemma"])
def test_a_saved_folder_scores_like_the_model_in_memory(
    name: str, folders: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    original: Lvlm = request.getfixturevalue(name)
    loaded = load_lvlm(folders[name])
    assert loaded.family == original.family
    assert (loaded.device.type, loaded.dtype) == ("cpu", torch.float32) or torch.cuda.is_available()
    assert loaded.hub_id == str(folders[name])
    assert not any(p.requires_grad for p in loaded.model.parameters())
    mine, theirs = (m.prepare(IMAGE, "Is it?", "Yes\n") for m in (original, loaded))
    assert mine.rows == theirs.rows
    np.testing.assert_allclose(
        loaded.log_probs(theirs, [theirs.frame]), original.log_probs(mine, [mine.frame]), atol=1e-6
    )
    assert loaded.generate([IMAGE], ["Is it?"], 3) == original.generate([IMAGE], ["Is it?"], 3)


def test_revision_names_the_weights(folders: dict[str, Path], copy: Path) -> None:
    first = load_lvlm(folders["tiny_qwen"]).revision
    assert first is not None
    assert first.startswith("sha256:")
    assert load_lvlm(copy).revision == first
    model, _ = testing.tiny_qwen_parts(seed=1)
    model.save_pretrained(copy)
    assert load_lvlm(copy).revision != first


def test_a_cached_snapshot_has_its_commit_as_revision(folders: dict[str, Path], tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = shutil.copytree(folders["tiny_qwen"], tmp_path / "models--a--b" / "snapshots" / commit)
    assert load_lvlm(folder).revision == commit


def test_dtype_and_attention(folders: dict[str, Path]) -> None:
    assert load_lvlm(folders["tiny_qwen"], dtype="bfloat16").dtype == torch.bfloat16
    assert load_lvlm(folders["tiny_qwen"], dtype=torch.float64).dtype == torch.float64
    eager = load_lvlm(folders["tiny_gemma"], attention="eager", memory_budget=1 << 20)
    assert eager.model.config._attn_implementation == "eager"
    assert eager.memory_budget == 1 << 20
    with pytest.raises(LvlmError, match="no floating-point type"):
        load_lvlm(folders["tiny_qwen"], dtype="int8")
    with pytest.raises(LvlmError, match="attention kernel 'magic'") as caught:
        load_lvlm(folders["tiny_qwen"], attention="magic")
    assert "sdpa" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2_5_vl_3", "did you mean 'qwen2_5_vl_3b'"),
        ("medgemma", "did you mean"),
        ("something else entirely", "there is no LVLM"),
        ("./nowhere", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
    ],
)
def test_unknown_names(name: str, expected: str) -> None:
    with pytest.raises(LvlmError, match=expected):
        load_lvlm(name)


def test_the_error_for_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(LvlmError) as caught:
        load_lvlm("xyz")
    assert all(key in str(caught.value) for key in LVLMS)


def test_a_hub_id_out_of_reach() -> None:
    with pytest.raises(LvlmError, match="cannot be loaded") as caught:
        load_lvlm("nobody/no-such-model")
    assert "hf auth login" in str(caught.value)


def test_a_file_is_not_a_folder(copy: Path) -> None:
    with pytest.raises(LvlmError, match="this is a file"):
        load_lvlm(copy / "config.json")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("config.json", "no config.json"),
        ("processor_config.json", "no processor"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no weights"),
        ("chat_template.jinja", "no chat template"),
    ],
)
def test_incomplete_folders(copy: Path, pattern: str, expected: str) -> None:
    (copy / pattern).unlink()
    with pytest.raises(LvlmError, match=expected):
        load_lvlm(copy)


def test_a_chat_template_in_the_tokenizers_configuration_is_found(copy: Path) -> None:
    expected = load_lvlm(copy).generate([IMAGE], ["Is it?"], 3)
    template = copy / "chat_template.jinja"
    config = json.loads((copy / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = template.read_text(encoding="utf-8")
    (copy / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    template.unlink()
    assert load_lvlm(copy).generate([IMAGE], ["Is it?"], 3) == expected


def test_a_key_and_logits_processors_of_ones_own(copy: Path) -> None:
    config = json.loads((copy / "generation_config.json").read_text(encoding="utf-8"))
    (copy / "generation_config.json").write_text(json.dumps({**config, "repetition_penalty": 1.05}), encoding="utf-8")
    lvlm = load_lvlm(copy, key="mine")
    assert lvlm.key == "mine"
    assert lvlm.decoding == {"greedy": True, "off": {"repetition_penalty": 1.05}}
    asked = load_lvlm(copy, decoding={"repetition_penalty": 1.05})
    assert (asked.key, asked.decoding) == (str(copy), {"greedy": True, "repetition_penalty": 1.05})
    with pytest.raises(LvlmError, match="'num_beams' is no logits processor"):
        load_lvlm(copy, decoding={"num_beams": 2})


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer.json", "model.safetensors"])
def test_truncated_files(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LvlmError, match="cannot be loaded"):
        load_lvlm(copy)


def test_weights_that_lack_tensors_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    gone = next(name for name in weights if "layers.1" in name)
    weights.pop(gone)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LvlmError, match="lack 1 tensors"):
        load_lvlm(copy)


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(LvlmError, match="no weights"):
        load_lvlm(copy)


@pytest.mark.parametrize("model_type", ["bert", "brand_new", None])
def test_other_families_are_refused_by_name(copy: Path, model_type: str | None) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["model_type"] = model_type
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(LvlmError, match=f"family {model_type!r} are not supported") as caught:
        load_lvlm(copy)
    assert "qwen2_5_vl" in str(caught.value)
    assert "gemma3" in str(caught.value)


def test_remote_code_is_never_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("raise SystemExit('remote code ran')")
    assert load_lvlm(copy).family == "qwen2_5_vl"


def test_devices(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LvlmError, match="no device"):
        load_lvlm(folders["tiny_qwen"], device="gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LvlmError, match="no CUDA device"):
        load_lvlm(folders["tiny_qwen"], device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(LvlmError, match="no cuda:3"):
        load_lvlm(folders["tiny_qwen"], device="cuda:3")


@pytest.mark.parametrize("package", ["torchvision", "torch", "transformers"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == package else find(n, *a))
    with pytest.raises(MissingDependencyError, match=package) as caught:
        load_lvlm("toy_qwen")
    assert "medground-bench[lvlm]" in str(caught.value)


def test_the_package_is_light_until_it_is_used() -> None:
    code = (
        "import sys, medground_bench.lvlm as l; assert not {'torch', 'transformers'} & set(sys.modules);"
        "l.TokenGrid; l.Episode; assert 'torch' not in sys.modules; l.Lvlm; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_from_parts_refuses_other_families() -> None:
    class Other:
        config = type("Config", (), {"model_type": "bert"})()

    with pytest.raises(LvlmError, match="'bert'"):
        Lvlm.from_parts(Other(), None)


def test_loading_is_silent(folders: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    load_lvlm(folders["tiny_qwen"])
    out, err = capfd.readouterr()
    assert out == ""
    assert "Loading" not in err


def test_weights_of_few_bits(tmp_path: Path) -> None:
    with pytest.raises(LvlmError, match="3 bits cannot be loaded"):
        load_lvlm(tmp_path, bits=3)
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(MissingDependencyError, match="bitsandbytes"):
            load_lvlm(tmp_path, bits=4)


def test_code_of_its_own_is_not_run_and_the_message_says_so(tmp_path: Path) -> None:
    config = {"model_type": "chexagent", "auto_map": {"AutoModel": "modeling.py"}, "transformers_version": "4.40.0"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LvlmError, match="Python code of its own, which is not run"):
        load_lvlm(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gone", "transformers_version": "4.40.0"}))
    with pytest.raises(LvlmError, match=r"configuration of transformers 4\.40\.0, installed is"):
        load_lvlm(tmp_path)
