"""What is missing is told before the first record; time limits; passes."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from medground_bench.attribution.limits import check_limit, time_limit
from medground_bench.attribution.method import get_method, method
from medground_bench.attribution.needs import able, unmet
from medground_bench.core.errors import LvlmError, MethodError


def prepared(*_: Any) -> Any:
    return SimpleNamespace(grid="known")


def lvlm(**more: Any) -> Any:
    base = {"key": "mine", "model": SimpleNamespace(), "layers": [1, 2], "generate": print, "prepare": prepared}
    return SimpleNamespace(**{**base, **more})


class Closed(SimpleNamespace):
    """An LVLM whose decoder layers nobody knows."""

    @property
    def layers(self) -> Any:
        raise LvlmError("the inside of 'blip' is not known: its decoder layers")


CLOSED: Any = Closed(key="mine", model=SimpleNamespace(), generate=print)


def reason(name: str, where: Any, **options: Any) -> str | None:
    found = get_method(name)
    return unmet(found, found.make_parameters(options), where)


def test_nothing_is_missing() -> None:
    for name in ("occlusion", "gradcam", "prompting", "cem"):
        assert reason(name, lvlm()) is None


@pytest.mark.parametrize(
    ("name", "where", "options", "said"),
    [
        ("attention", CLOSED, {}, "the inside of 'blip' is not known"),
        ("attention", SimpleNamespace(key="served"), {}, "served only answers and scores"),
        ("gradcam", lvlm(model=SimpleNamespace(quantization_method="bitsandbytes")), {}, "quantised .bitsandbytes."),
        ("prompting", lvlm(generate=None), {}, "only scores"),
        ("lung_mask_prior", lvlm(), {"localizer": "nobody"}, "no localiser of anatomy named 'nobody'"),
        ("shapley_anatomy", lvlm(), {"regions": "anatomy:nobody"}, "no localiser of anatomy named 'nobody'"),
        ("cem", lvlm(), {"references": "./nowhere"}, "which is no folder"),
        ("localization_heads", lvlm(), {"calibration": "nowhere.json"}, "nowhere.json, which does not exist"),
    ],
)
def test_each_need_has_its_line(name: str, where: Any, options: dict[str, Any], said: str) -> None:
    import re

    found = reason(name, where, **options)
    assert found is not None
    assert re.search(said, found)
    assert "\n" not in found


def test_the_others_go_on() -> None:
    plans = [(m, m.make_parameters()) for m in map(get_method, ("occlusion", "gradcam", "rise"))]
    kept, left_out = able(plans, CLOSED)
    assert [m.name for m, _ in kept] == ["occlusion", "rise"]
    assert list(left_out) == ["gradcam"]


def test_superpixels_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import medground_bench.attribution.needs as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "skimage" else object())
    assert "scikit-image" in str(reason("eagle", lvlm()))
    assert "scikit-image" in str(reason("xrai", lvlm()))
    assert reason("eagle", lvlm(), regions="tiles:4x4") is None


def test_a_time_limit_ends_a_method_and_leaves_no_alarm() -> None:
    with pytest.raises(MethodError, match=r"more than 0\.05 seconds"), time_limit(0.05):
        time.sleep(5)
    with time_limit(0.05):
        pass
    time.sleep(0.1)  # an alarm that were left would end this
    with time_limit(None):
        time.sleep(0.01)


def test_a_time_limit_needs_the_main_thread() -> None:
    errors: list[Exception] = []

    def check() -> None:
        try:
            check_limit(1.0)
        except MethodError as error:
            errors.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert "main thread" in str(errors[0])
    check_limit(1.0)
    with pytest.raises(MethodError, match="positive"):
        check_limit(0.0)


def test_passes_are_counted() -> None:
    torch = pytest.importorskip("torch")
    import numpy as np
    from PIL import Image

    from medground_bench.lvlm.passes import count_passes
    from medground_bench.lvlm.testing import tiny_qwen
    from medground_bench.lvlm.whitebox import embedding_gradients

    model = tiny_qwen()
    pixels = np.random.default_rng(0).integers(0, 256, (84, 84), dtype=np.uint8)
    episode = model.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", "Yes", side=None)
    with count_passes(model) as passes:
        model.log_probs(episode, np.stack([pixels] * 5), batch_size=2)
        embedding_gradients(model, episode)
    assert (passes.forward, passes.backward) == (6, 1)
    assert not model.model.get_output_embeddings()._forward_hooks
    assert torch is not None
    with count_passes(SimpleNamespace(key="served")) as none:  # type: ignore[arg-type]
        assert none.forward == 0


def test_a_declared_blindness_is_told() -> None:
    assert not get_method("sobel").question_aware
    assert get_method("occlusion").question_aware

    @method("mine", family="x")
    def mine(lvlm: Any, episode: Any, parameters: Any) -> Any:
        return None

    assert mine.question_aware
