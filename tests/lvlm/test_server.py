"""LVLMs behind a server: the same numbers as here, whatever the network does; what does not conform is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import filter_candidates
from medground_bench.causal.verdicts import read_verdicts
from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, load_lvlm
from medground_bench.lvlm.server.address import ALLOWED_VARIABLE, KEY_VARIABLE, parse_address
from medground_bench.lvlm.server.client import Limits
from medground_bench.lvlm.server.conformance import check_server
from medground_bench.lvlm.server.model import ServerLvlm, _aligned
from medground_bench.sources import open_source
from medground_bench.sources.phantom.writers import write_source
from tests.lvlm.toy_server import ToyServer, serving

QUICK = Limits(requests=16, timeout=30, attempts=6, backoff=0.01)
FAULTS = ("slow", "429", "500", "dropped", "wrong count", "truncated", "cut short")
QUESTION = question("lung opacity", "direct")


@pytest.fixture(scope="module")
def local() -> Lvlm:
    return load_lvlm("toy_qwen")


@pytest.fixture(scope="module")
def shared(local: Lvlm) -> Iterator[ToyServer]:
    with serving(local, "toy_qwen") as server:
        yield server


@pytest.fixture
def toy(shared: ToyServer) -> Iterator[ToyServer]:
    yield shared
    shared.fault, shared.twist, shared.most = (lambda n, body: None), (lambda body, reply: reply), 0
    shared.models = {"object": "list", "data": [{"id": "toy_qwen", "object": "model"}]}
    shared.bodies.clear()
    shared.seen.clear()


@pytest.fixture
def remote(toy: ToyServer) -> ServerLvlm:
    return ServerLvlm.connect(toy.address, limits=QUICK)


def picture(seed: int = 0, size: tuple[int, int] = (300, 260)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8))


def every_fault(n: int, body: dict[str, Any]) -> str | None:
    return FAULTS[n // 3 % len(FAULTS)] if n % 3 == 0 else None


@pytest.mark.parametrize("response", ["Yes", "Yes, there is.\n", " No évidence – none"])
def test_scores_equal_the_local_ones(remote: ServerLvlm, local: Lvlm, response: str) -> None:
    image = picture()
    here, there = local.prepare(image, QUESTION, response), remote.prepare(image, QUESTION, response)
    assert there.token_ids == here.token_ids
    assert there.rows == here.rows
    assert "".join(token.text for token in there.tokens) == response
    frames = np.stack([here.frame_array, 255 - here.frame_array])
    np.testing.assert_allclose(remote.log_probs(there, frames), local.log_probs(here, frames), atol=1e-4)
    assert remote.log_probs(there, frames[:0]).shape == (0, len(here.rows))


def test_methods_equal_the_local_run_with_16_in_flight_and_faults(toy: ToyServer, local: Lvlm) -> None:
    remote = ServerLvlm.connect(toy.address, limits=QUICK)
    image = picture(1)
    here, there = local.prepare(image, QUESTION, "Yes"), remote.prepare(image, QUESTION, "Yes")
    toy.fault, toy.most = every_fault, 0
    for name, options in (("rise", {"masks": 24}), ("occlusion", {"rows": 5, "cols": 5})):
        method = get_method(name)
        parameters = method.make_parameters(options)
        a, b = method.run(local, here, parameters), method.run(remote, there, parameters)
        assert a.heatmap is not None
        assert b.heatmap is not None
        np.testing.assert_allclose(b.heatmap, a.heatmap, atol=1e-4)
        assert a.boxes == b.boxes
    assert set(FAULTS) < set(toy.seen)
    assert 8 < toy.most <= 16


def test_medfocus_equals_the_local_run(remote: ServerLvlm, local: Lvlm) -> None:
    image = picture(2)
    method = get_method("medfocus_multi_atlas")
    parameters = method.make_parameters({})
    a = method.run(local, local.prepare(image, QUESTION, "Yes"), parameters)
    b = method.run(remote, remote.prepare(image, QUESTION, "Yes"), parameters)
    assert a.concept_scores.keys() == b.concept_scores.keys()
    for concept, score in a.concept_scores.items():
        assert b.concept_scores[concept] == pytest.approx(score, abs=1e-4)
    assert a.boxes == b.boxes


def test_filter_equals_the_local_run_despite_faults(toy: ToyServer, local: Lvlm, tmp_path: Path) -> None:
    root = write_source("phantom", tmp_path / "set", 2, seed=3, size=224).root
    sources = {"phantom": open_source("phantom", root)}
    remote = ServerLvlm.connect(toy.address, limits=QUICK)
    toy.fault = every_fault
    found = {}
    for name, lvlm in (("here", local), ("there", remote)):
        filter_candidates(lvlm, "direct", sources, load_editor("phantom"), tmp_path / name, limit=2)
        found[name] = [(v.key, v.verdict, dict(v.answers)) for v in read_verdicts(tmp_path / name)]
    assert found["here"] == found["there"]
    written = (tmp_path / "there" / "filter.json").read_text()
    assert '"engine": "vllm 0.0.toy"' in written
    assert toy.url not in written


def test_white_box_methods_say_that_they_need_the_model_here(remote: ServerLvlm) -> None:
    episode = remote.prepare(picture(), QUESTION, "Yes")
    for name in ("attention", "lrp", "gradcam", "integrated_gradients"):
        with pytest.raises(LvlmError, match="does not show the inside"):
            get_method(name).run(remote, episode)


def test_greedy_whatever_the_server_prefers(toy: ToyServer, remote: ServerLvlm, local: Lvlm) -> None:
    images, asked = [picture(), picture(1)], [QUESTION, [QUESTION, "Yes", "Why?"]]
    assert remote.generate(images, asked, 5) == local.generate(images, asked, 5)
    body = toy.bodies[-1]
    assert (body["temperature"], body["repetition_penalty"], body["top_p"]) == (0, 1.0, 1)
    assert [m["role"] for m in body["messages"]] == ["user", "assistant", "user"] or len(body["messages"]) == 1
    with pytest.raises(LvlmError, match="not asked for 'min_length'"):
        ServerLvlm.connect(toy.address, limits=QUICK, decoding={"min_length": 2})


# -- conformance --------------------------------------------------------------------------------------------------


def test_a_good_server_conforms(toy: ToyServer, local: Lvlm) -> None:
    remote = ServerLvlm.connect(toy.address, limits=QUICK, local=local)
    assert remote.backend == {"name": "openai", "engine": "vllm 0.0.toy"}
    found = check_server(remote, local=local)
    assert found["repeats_within"] <= 1e-4
    assert found["agrees_within"] <= 1e-4
    # The image's tokens with the two that stand around it.
    assert found["image_tokens"] == len(local.prepare(picture(), QUESTION, "Yes").image_positions) + 2
    assert (remote.key, remote.hub_id) == ("toy_qwen", "toy_qwen")


def first_image_sticks() -> Any:
    """A prefix cache keyed by tokens alone: what was computed for the first image is given for every other."""
    kept: dict[tuple[int, ...], Any] = {}

    def twist(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        ids = tuple(reply.get("prompt_token_ids", ()))
        if ids:
            reply["prompt_logprobs"] = kept.setdefault(ids, reply["prompt_logprobs"])
        return reply

    return twist


def shifted(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    """Every entry holds the value of its neighbour to the left."""
    entries = reply.get("prompt_logprobs")
    if entries:
        values = [0.0] + [next(iter(e.values()))["logprob"] for e in entries[1:]]
        for entry, value in zip(entries[1:], values, strict=False):
            next(iter(entry.values()))["logprob"] = value
    return reply


def left_edge_lost(local: Lvlm, server: ToyServer) -> Any:
    complete = server.complete
    import base64
    import io

    def cropping(body: dict[str, Any]) -> dict[str, Any]:
        for message in body["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if part["type"] == "image_url":
                    data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
                    image = Image.open(io.BytesIO(data)).convert("RGB")
                    image.paste((0, 0, 0), (0, 0, 28, image.height))
                    stream = io.BytesIO()
                    image.save(stream, "PNG")
                    part["image_url"]["url"] = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        return complete(body)

    return cropping


def drop(*names: str) -> Any:
    def twist(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in reply.items() if k not in names}

    return twist


def another_model(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    return {**reply, "model": "another"}


def random_values(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
    for entry in (reply.get("prompt_logprobs") or [])[1:]:
        next(iter(entry.values()))["logprob"] -= float(np.random.default_rng().random())
    return reply


@pytest.mark.parametrize(
    ("twist", "message"),
    [
        (first_image_sticks(), "stale prefix cache"),
        (shifted, "another token has the same log-probability"),
        (drop("prompt_logprobs", "prompt_token_ids"), "no log-probabilities of its prompts"),
        (another_model, "answers with the model 'another'"),
        (random_values, "the same request twice"),
    ],
)
def test_what_does_not_conform_is_refused_before_any_record(toy: ToyServer, twist: Any, message: str) -> None:
    toy.twist = twist
    with pytest.raises(LvlmError, match=message):
        load_lvlm(toy.address)


def test_an_image_that_is_cut_is_found(toy: ToyServer, local: Lvlm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "complete", left_edge_lost(local, toy))
    with pytest.raises(LvlmError, match="left edge of the image changes nothing"):
        ServerLvlm.connect(toy.address, limits=QUICK)


def test_a_local_model_tells_other_values_and_names_the_trap(toy: ToyServer, local: Lvlm) -> None:
    def off(body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        for entry in (reply.get("prompt_logprobs") or [])[1:]:
            next(iter(entry.values()))["logprob"] *= 1.3
        return reply

    toy.twist = off
    ServerLvlm.connect(toy.address, limits=QUICK)  # alone, nobody can tell
    with pytest.raises(LvlmError, match="nats a token apart"):
        ServerLvlm.connect(toy.address, limits=QUICK, local=local)


def test_a_server_without_token_ids_is_read_by_its_entries(toy: ToyServer, local: Lvlm) -> None:
    toy.twist = drop("prompt_token_ids")
    remote = ServerLvlm.connect(toy.address, limits=QUICK)
    episode = local.prepare(picture(), QUESTION, "Yes, there is.")
    found = remote.log_probs(remote.prepare(picture(), QUESTION, "Yes, there is."), [episode.frame])
    np.testing.assert_allclose(found, local.log_probs(episode, [episode.frame]), atol=1e-4)


def test_a_template_that_trims_is_named(tiny_gemma: Lvlm) -> None:
    with serving(tiny_gemma, "tiny") as server:
        remote = ServerLvlm.connect(server.address, limits=QUICK)
        assert remote.prepare(picture(), QUESTION, "Yes").token_ids
        with pytest.raises(LvlmError, match="cuts the white space"):
            remote.prepare(picture(), QUESTION, "Yes\n")


# -- what goes wrong on the way -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "slow"])
def test_a_fault_that_stays_is_given_up(toy: ToyServer, fault: str) -> None:
    remote = ServerLvlm.connect(toy.address, limits=Limits(4, 30, 2, 0.01))
    episode = remote.prepare(picture(), QUESTION, "Yes")
    toy.fault = lambda n, body: fault
    with pytest.raises(LvlmError, match=r"no usable reply in 2 attempt"):
        remote.log_probs(episode, [episode.frame] * 3)


def test_a_server_that_is_too_slow(toy: ToyServer) -> None:
    remote = ServerLvlm.connect(toy.address, limits=QUICK)
    episode = remote.prepare(picture(), QUESTION, "Yes")
    toy.fault = lambda n, body: "slow"
    hasty = ServerLvlm(parse_address(toy.address), type(remote.client)(toy.url, None, Limits(2, 0.05, 2, 0.01)))
    with pytest.raises(LvlmError, match="Timeout"):
        hasty.log_probs(episode, [episode.frame])


def test_a_refusal_is_not_tried_again(toy: ToyServer, remote: ServerLvlm) -> None:
    episode = remote.prepare(picture(), QUESTION, "Yes")
    toy.seen.clear()
    toy.fault = lambda n, body: "400"
    with pytest.raises(LvlmError, match="the prompt is too long") as caught:
        remote.log_probs(episode, [episode.frame])
    assert "\x1b" not in str(caught.value)
    assert toy.seen == {"400": 1}


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LvlmError, match="ConnectError"):
        ServerLvlm.connect("openai:toy@http://127.0.0.1:9/v1", limits=QUICK)


def test_other_protocols_and_models(toy: ToyServer) -> None:
    with pytest.raises(LvlmError, match="status 404"):
        ServerLvlm.connect(f"openai:toy_qwen@{toy.url}/v2", limits=QUICK)
    with pytest.raises(LvlmError, match=r"does not serve 'qwen'[\s\S]*toy_qwen"):
        ServerLvlm.connect(f"openai:qwen@{toy.url}", limits=QUICK)
    toy.models = ["toy_qwen"]
    with pytest.raises(LvlmError, match="another protocol"):
        ServerLvlm.connect(toy.address, limits=QUICK)


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(
    local: Lvlm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "sk-very-secret-1"
    with serving(local, "toy_qwen", key=secret) as server, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv(KEY_VARIABLE, "wrong")
        with pytest.raises(LvlmError, match=KEY_VARIABLE):
            ServerLvlm.connect(server.address, limits=QUICK)
        monkeypatch.setenv(KEY_VARIABLE, secret)
        remote = ServerLvlm.connect(server.address, limits=QUICK)
        server.twist = lambda body, reply: 1 / 0  # the connection breaks
        shown = f"{remote!r} {vars(remote.client)['limits']} {remote.client!r} {remote.backend}"
    assert secret not in shown + caplog.text
    monkeypatch.setenv(KEY_VARIABLE, "two\nlines")
    with pytest.raises(LvlmError, match="is no key"):
        ServerLvlm.connect("openai:toy@http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("openai:toy", "names no model at a server"),
        ("openai:toy@ftp://host/v1", "names no model at a server"),
        ("openai:toy@http://user:pass@localhost:1/v1", "key or password stands in the address"),
        ("openai:toy@https://api.example.com/v1", "beyond this network"),
        ("openai:toy@http://8.8.8.8/v1", "beyond this network"),
    ],
)
def test_addresses_that_are_refused(address: str, message: str) -> None:
    with pytest.raises(LvlmError, match=message) as caught:
        load_lvlm(address)
    assert "pass" not in str(caught.value).replace("password", "")


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = parse_address("openai:Qwen/Qwen2.5-VL-3B-Instruct@http://gpu7:8000/v1/")
    assert (found.model, found.url, found.key) == (
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "http://gpu7:8000/v1",
        "qwen2_5_vl_3b",
    )
    assert parse_address("openai:me/mine@http://10.0.0.3/v1").key == "mine"
    monkeypatch.setenv(ALLOWED_VARIABLE, "api.example.com")
    with pytest.raises(LvlmError, match="unencrypted"):
        parse_address("openai:toy@http://api.example.com/v1")
    assert parse_address("openai:toy@https://api.example.com/v1").key == "toy"


def test_pieces_of_a_response_join_to_it_again() -> None:
    assert _aligned("Yes, it is.\n", ["Yes", ",", "it", "is", ".", "\n"]) == ["Yes", ",", " it", " is", ".", "\n"]
    assert _aligned("an é b", ["an", "\ufffd", "\ufffd", "b"]) == ["an", "", "", " é b"]
    assert _aligned("no", ["x"]) == ["no"]
