"""Does a server give the numbers that it should? Found out with a few requests, before any record is spent.

What is looked for, and the known faults that each check finds:

- it serves the model, and returns log-probabilities of prompts with images;
- the response stands at the end of the prompt, token for token;
- nothing is cut: a longer question makes a longer prompt, every edge of the image matters;
- another image gives other numbers, and the first image again its own: *a stale prefix cache* keyed by tokens alone
  gives the first image's numbers for the second;
- the same request twice gives the same numbers;
- a response with another last token leaves the entries before it as they are, and changes its own;
- where the model is at hand here: the same tokens, and the same numbers. *A causal mask over image tokens that should
  see each other* (Gemma) is found by this alone, as is another preprocessing of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question

if TYPE_CHECKING:
    from medground_bench.lvlm.server.model import Scored, ServerLvlm

__all__ = ["check_server"]

_SIDE = 224
_EDGE = 28
_QUESTION = question("lung opacity", "direct")
_FIRST, _SECOND = "Yes, there is", "Yes, there are"
SAME = 0.05
"""Nats by which two answers to one request may differ: half-precision kernels depend on what else is in a batch."""
AGREE = 0.1
"""Nats by which server and local model may differ in the mean over tokens, in half precision with other kernels."""


def check_server(server: ServerLvlm, *, local: Any = None) -> dict[str, Any]:
    """Check a server; name and engine go to ``server.backend``, which stands in the provenance.

    Parameters
    ----------
    server : ServerLvlm
        Not yet used.
    local : Lvlm, optional
        The same model here.

    Returns
    -------
    dict
        ``name``, ``engine``, ``repeats_within`` (nats), ``image_tokens``; with ``local`` also ``agrees_within`` (nats).

    Raises
    ------
    LvlmError
        If a check fails: which, the known causes, and what to do.
    """
    _check_models(server)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8)
    frame, other = _frame(noise), _frame(rng.integers(0, 256, (_SIDE, _SIDE), dtype=np.uint8))

    start = server.start(frame, _QUESTION)
    (first,) = server.score([frame], _QUESTION, _FIRST)
    length = len(first.ids) - len(start)
    if length < 1 or first.ids[: len(start)] != start:
        raise _fault(
            server,
            "the prompt with a response is not the prompt and then the response",
            "continue_final_message is not understood, or the chat template adds to the last message",
        )
    (changed,) = server.score([other], _QUESTION, _FIRST)
    (again,) = server.score([frame], _QUESTION, _FIRST)
    if _apart(first, changed, length) == 0:
        raise _fault(
            server,
            "two images give the same log-probabilities",
            "a stale prefix cache keyed by tokens alone (start the server with --no-enable-prefix-caching), or images "
            "are dropped",
        )
    if (spread := _apart(first, again, length)) > SAME:
        raise _fault(
            server,
            f"the same request twice gives log-probabilities {spread:.3g} nats apart",
            "a stale prefix cache (--no-enable-prefix-caching), or sampling noise in the model",
        )
    _check_shift(server, frame, first, length, spread)
    _check_nothing_is_cut(server, frame, noise, first, length, spread, start)
    bare = server.client.post_all(
        "chat/completions",
        1,
        lambda n: {**server.chat([_QUESTION], None), "max_tokens": 1, "temperature": 0, "add_generation_prompt": True},
        lambda n, reply: (reply.get("usage") or {}).get("prompt_tokens"),
    )[0]
    found: dict[str, Any] = {"name": "openai", "engine": _engine(server), "repeats_within": round(spread, 6)}
    if isinstance(bare, int):
        found["image_tokens"] = len(start) - bare
    if local is not None:
        found["agrees_within"] = round(_check_local(server, local, frame), 6)
    server.backend = {"name": found["name"], "engine": found["engine"]}
    return found


def _check_models(server: ServerLvlm) -> None:
    reply = server.client.get("models", attempts=2)
    try:
        names = [str(entry["id"]) for entry in reply["data"]]
    except (KeyError, TypeError) as error:
        raise LvlmError(
            "the server speaks another protocol: its list of models is none",
            where=server.client.url,
            expected="an OpenAI-compatible server (GET /models, POST /chat/completions)",
        ) from error
    if server.hub_id not in names:
        raise LvlmError(
            f"the server does not serve {server.hub_id!r}",
            where=server.client.url,
            expected="one of " + ", ".join(names[:10]),
        )


def _check_shift(server: ServerLvlm, frame: Image.Image, first: Scored, length: int, spread: float) -> None:
    (second,) = server.score([frame], _QUESTION, _SECOND)
    a, b = first.ids[-length:], second.ids[len(first.ids) - length :]
    same = next((k for k, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if same == length:
        raise _fault(server, "another response has the same tokens", "the response does not reach the model")
    before = len(first.ids) - length - 1  # entries of the first token are left out of log_probs
    one, two = np.array(first.log_probs[before:]), np.array(second.log_probs[before:])
    if same and np.abs(one[:same] - two[:same]).max() > max(SAME, 2 * spread):
        raise _fault(
            server,
            "a token's log-probability depends on the tokens after it",
            "entries are shifted, or attention over the response is not causal",
        )
    if one[same] == two[same]:
        raise _fault(server, "another token has the same log-probability", "entries are shifted by one")


def _check_nothing_is_cut(
    server: ServerLvlm,
    frame: Image.Image,
    pixels: np.ndarray,
    first: Scored,
    length: int,
    spread: float,
    start: tuple[int, ...],
) -> None:
    longer = server.start(frame, _QUESTION + " Look closely at both lungs.")
    if len(longer) <= len(start):
        raise _fault(
            server, "a longer question makes no longer prompt", "prompts are truncated (truncate_prompt_tokens)"
        )
    edges = {
        "upper": (slice(0, _EDGE), slice(None)),
        "lower": (slice(-_EDGE, None), slice(None)),
        "left": (slice(None), slice(0, _EDGE)),
        "right": (slice(None), slice(-_EDGE, None)),
    }
    frames = []
    for where in edges.values():
        changed = pixels.copy()
        changed[where] = 255 - changed[where]
        frames.append(_frame(changed))
    for name, scored in zip(edges, server.score(frames, _QUESTION, _FIRST), strict=True):
        if len(scored.ids) != len(first.ids):
            raise _fault(server, "images of one size have different numbers of tokens", "an image is cut on its way")
        if _apart(first, scored, length) <= spread:
            raise _fault(
                server,
                f"the {name} edge of the image changes nothing",
                "the image is truncated or cropped before the model sees it",
            )


def _check_local(server: ServerLvlm, local: Any, frame: Image.Image) -> float:
    here = local.prepare(frame, _QUESTION, _FIRST)
    there = server.prepare(frame, _QUESTION, _FIRST)
    if here.token_ids != there.token_ids or here.length != there.rows[-1] + 2:
        raise _fault(
            server,
            f"server and local model read other tokens ({there.rows[-1] + 2} and {here.length} of prompt and response)",
            "another chat template, or another size of the image (min_pixels, max_pixels, pan and scan, tiles)",
        )
    apart = float(np.abs(local.log_probs(here, [frame]) - server.log_probs(there, [frame])).mean())
    if apart > AGREE:
        causes = "another preprocessing of the image, other weights or a coarse quantisation"
        if "gemma" in f"{local.family} {server.hub_id}".lower():
            causes = "a causal mask over Gemma's image tokens, which should see each other (older vLLM); " + causes
        raise _fault(server, f"server and local model are {apart:.3g} nats a token apart", causes)
    return apart


def _apart(a: Scored, b: Scored, length: int) -> float:
    """Largest difference between the entries of the response's tokens."""
    if a.ids[-length:] != b.ids[-length:]:
        return float("inf")
    return float(np.abs(np.array(a.log_probs[-length:]) - np.array(b.log_probs[-length:])).max())


def _engine(server: ServerLvlm) -> str:
    try:
        version = server.client.get("/version", attempts=1)
    except LvlmError:
        return "unknown"
    return f"vllm {version['version']}"[:40] if isinstance(version, dict) and "version" in version else "unknown"


def _frame(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels).convert("RGB")


def _fault(server: ServerLvlm, what: str, causes: str) -> LvlmError:
    return LvlmError(
        f"the server does not conform: {what}",
        where=server.client.url,
        expected=f"the numbers of the model itself; known causes: {causes}",
        remedy="mend the server, or load the model here",
    )
