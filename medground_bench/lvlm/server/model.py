"""An LVLM behind a server: it generates and scores, and shows nothing of its inside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.episode import Episode, Generated, ResponseToken
from medground_bench.lvlm.images import letterbox_image, stack_variants, to_rgb_images
from medground_bench.lvlm.server.address import Address, api_key, parse_address
from medground_bench.lvlm.server.client import Client, Limits, UnusableReply
from medground_bench.lvlm.server.conformance import check_server

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Scored", "ServerLvlm"]

_CLAMPED = -9998.0
"""What servers write for minus infinity, which JSON has not, is below."""
_INSIDE = frozenset(
    [
        "adapter",
        "config",
        "image_inputs",
        "layers",
        "memory_budget",
        "model",
        "model_inputs",
        "pixel_inputs",
        "processor",
        "processors",
        "response_log_probs",
        "variant_inputs",
    ]
)


@dataclass(frozen=True)
class Scored:
    """A prompt with its response, as the server read it.

    Attributes
    ----------
    ids : tuple of int
        All tokens, image tokens among them.
    log_probs : tuple of float
        Of each token but the first, given those before it.
    texts : tuple of str
        Of each token but the first.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    texts: tuple[str, ...]


class ServerLvlm:
    """A model at an OpenAI-compatible server: what black-box methods and the filter need of an LVLM.

    Images travel as PNG of the frame; chat template, processor and weights are the server's. A response is scored by a
    chat request whose last assistant message is the response itself, continued by no token that counts
    (``continue_final_message``, ``prompt_logprobs: 0``).

    Attributes
    ----------
    key : str
        The name it goes by in records.
    hub_id : str
        The name it is served under.
    revision : None
        A server does not say which weights it has loaded.
    family, dtype : str
        ``"server"``.
    backend : dict
        What serves it, for the provenance: never its address.
    """

    revision = None
    family = "server"
    dtype = "server"
    device = "server"

    def __init__(
        self,
        address: Address,
        client: Client,
        *,
        key: str | None = None,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        unknown = sorted(set(decoding or {}) - {"repetition_penalty"})
        if unknown:
            raise LvlmError(f"a server is not asked for {unknown[0]!r}", expected="repetition_penalty, or nothing")
        self.key = key or address.key
        self.hub_id = address.model
        self.client = client
        self.backend: dict[str, Any] = {"name": "openai"}
        self._decoding = dict(decoding or {})
        self._starts: dict[tuple[str, tuple[int, int]], tuple[int, ...]] = {}

    @classmethod
    def connect(
        cls,
        address: str,
        *,
        key: str | None = None,
        decoding: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        local: Any = None,
    ) -> ServerLvlm:
        """The model at ``openai:MODEL@URL``, after the conformance check.

        Parameters
        ----------
        address : str
            ``openai:MODEL@http://HOST:PORT/v1``; a key is read from the environment.
        key : str, optional
            Name of the LVLM in records.
        decoding : mapping, optional
            ``repetition_penalty``; without it decoding is plainly greedy, whatever the server's defaults.
        limits : Limits, optional
            How it is asked; by default from the environment.
        local : Lvlm, optional
            The same model here, whose numbers the server's are compared with.

        Raises
        ------
        LvlmError
            If the server is down, speaks another protocol, serves another model, or does not conform.
        """
        where = parse_address(address)
        found = cls(
            where, Client(where.url, api_key(), limits or Limits.from_environment()), key=key, decoding=decoding
        )
        check_server(found, local=local)
        return found

    def __repr__(self) -> str:
        return f"ServerLvlm({self.key!r}, model={self.hub_id!r}, server={self.client.url!r})"

    def __getattr__(self, name: str) -> NoReturn:
        if name in _INSIDE:
            raise LvlmError(
                f"a server does not show the inside of an LVLM ({name})",
                where=self.__dict__.get("key"),
                expected="a black-box method (occlusion, rise, medfocus)",
                remedy="load the model here for white-box methods",
            )
        raise AttributeError(name)

    @property
    def decoding(self) -> dict[str, Any]:
        """How it generates, for the provenance."""
        return {"greedy": True, **self._decoding}

    # -- asking ---------------------------------------------------------------------------------------------------

    def generate(
        self,
        images: Sequence[Any],
        questions: Sequence[str | Sequence[str]],
        max_new_tokens: int = 256,
        *,
        side: int | None = 224,
        batch_size: int | None = None,
    ) -> list[Generated]:
        """Greedy answers, one per image and question: see :meth:`medground_bench.lvlm.Lvlm.generate`.

        ``batch_size`` is the server's own affair.
        """
        if len(images) != len(questions):
            raise LvlmError(f"{len(images)} images and {len(questions)} questions", expected="as many of each")
        turns = [_turns(question) for question in questions]

        def body(n: int) -> dict[str, Any]:
            frame = letterbox_image(images[n], side)[1]
            greedy = {"temperature": 0, "top_p": 1, "repetition_penalty": 1.0, **self._decoding}
            return {**self.chat(turns[n], frame), "max_tokens": max_new_tokens, **greedy}

        return self.client.post_all("chat/completions", len(images), body, lambda n, reply: self._answer(reply))

    def _answer(self, reply: Any) -> Generated:
        choice = self._choice(reply)
        message, reason = choice.get("message"), choice.get("finish_reason")
        if not isinstance(message, dict) or reason not in ("stop", "length"):
            raise UnusableReply(f"an answer that ended by {reason!r}")
        if message.get("reasoning") or message.get("reasoning_content"):
            raise LvlmError(
                "the server keeps the model's reasoning apart from its answer",
                where=self.client.url,
                expected="the text as the model wrote it",
                remedy="start it without --reasoning-parser",
            )
        return Generated(str(message.get("content") or ""), reason == "stop")

    # -- scoring --------------------------------------------------------------------------------------------------

    def prepare(self, image: Any, question: str, response: str, side: int | None = 224) -> Episode:
        """Bind an image, a question and a response: see :meth:`medground_bench.lvlm.Lvlm.prepare`.

        The episode has no tensors and no geometry: they are at the server.

        Raises
        ------
        LvlmError
            If a text is empty, or the server's template does not leave the response as it is.
        """
        for name, text in (("question", question), ("response", response)):
            if not isinstance(text, str) or not text.strip():
                raise LvlmError(f"the {name} is empty", expected="text with at least one visible character")
        native, frame, box = letterbox_image(image, side)
        (scored,) = self.score([frame], question, response)
        start = self.start(frame, question)
        ids, texts = scored.ids[len(start) :], scored.texts[len(start) - 1 :]
        if scored.ids[: len(start)] != start or not ids:
            raise LvlmError(
                "with the response the prompt has other tokens than without it",
                where=self.key,
                expected="a chat template whose prompt ends where the response begins (continue_final_message)",
            )
        self._check_texts(frame, question, response, ids, texts)
        tokens = tuple(ResponseToken(i, text) for i, text in zip(ids, _aligned(response, texts), strict=True))
        return Episode(
            image=native,
            frame=frame,
            letterbox=box,
            question=question,
            response=response,
            inputs=MappingProxyType({}),
            tokens=tokens,
            rows=tuple(range(len(start) - 1, len(scored.ids) - 1)),
            image_positions=(),
            geometry=None,
            family=self.family,
        )

    def _check_texts(
        self, frame: Image, question: str, response: str, ids: tuple[int, ...], texts: Sequence[str]
    ) -> None:
        said = "".join("".join(texts).split())
        if "\ufffd" not in said and said != "".join(response.split()):
            raise LvlmError(
                f"the server scores {said[:60]!r} in place of the response",
                where=self.key,
                expected="a chat template that ends with the response (continue_final_message)",
            )
        if response != response.strip():
            (bare,) = self.score([frame], question, response.strip())
            if bare.ids[-len(ids) :] == ids:
                raise LvlmError(
                    "the server's chat template cuts the white space around the response, which is part of it",
                    where=self.key,
                    expected="a template that leaves messages as they are",
                    remedy="load the model here, or serve it with such a template (--chat-template)",
                )

    def start(self, frame: Image, question: str) -> tuple[int, ...]:
        """Tokens of the prompt without a response; the image's number of tokens depends on the frame's size only."""
        key = (question, frame.size)
        if key not in self._starts:
            body = {**self.chat([question], frame), **_SCORE}
            (found,) = self.client.post_all("chat/completions", 1, lambda n: body, lambda n, r: self._scored(r))
            self._starts[key] = found.ids
        return self._starts[key]

    def score(self, frames: Sequence[Image], question: str, response: str) -> list[Scored]:
        """What the server makes of frames with one question and response."""

        def body(n: int) -> dict[str, Any]:
            return {**self.chat([question, response], frames[n]), **_SCORE, **_CONTINUE}

        return self.client.post_all("chat/completions", len(frames), body, lambda n, reply: self._scored(reply))

    def log_probs(self, episode: Episode, images: Any, *, batch_size: int | None = None) -> np.ndarray:
        """Log-probabilities of the response's tokens, (N, T) float32: see :meth:`medground_bench.lvlm.Lvlm.log_probs`.

        Raises
        ------
        LvlmError
            If the episode is of another LVLM, or a reply is given up.
        """
        if episode.family != self.family:
            raise LvlmError(f"the episode was prepared for {episode.family}", where=self.key)
        frames = to_rgb_images(stack_variants(images, episode.letterbox))
        ids = episode.token_ids
        length = episode.rows[-1] + 2

        def body(n: int) -> dict[str, Any]:
            return {**self.chat([episode.question, episode.response], frames[n]), **_SCORE, **_CONTINUE}

        def read(n: int, reply: Any) -> tuple[float, ...]:
            found = self._scored(reply)
            if len(found.ids) != length or found.ids[-len(ids) :] != ids:
                raise UnusableReply(f"{len(found.ids)} tokens where there are {length}, or others")
            return found.log_probs[-len(ids) :]

        rows = self.client.post_all("chat/completions", len(frames), body, read)
        out = np.array(rows, np.float32).reshape(len(frames), len(ids))
        if (out < _CLAMPED).any() or not np.isfinite(out).all():
            raise LvlmError("a log-probability is not finite", where=self.key, remedy="see how the server is started")
        return out

    # -- the protocol ---------------------------------------------------------------------------------------------

    def chat(self, turns: Sequence[str], frame: Image | None) -> dict[str, Any]:
        """The part of a request that says what is asked of which image."""
        messages: list[dict[str, Any]] = []
        for i, text in enumerate(turns):
            content: Any = text
            if i == 0 and frame is not None:
                picture = {"type": "image_url", "image_url": {"url": _data_url(frame)}}
                content = [picture, {"type": "text", "text": text}]
            messages.append({"role": "user" if i % 2 == 0 else "assistant", "content": content})
        return {"model": self.hub_id, "messages": messages, "seed": 0}

    def _choice(self, reply: Any) -> dict[str, Any]:
        served = reply.get("model") if isinstance(reply, dict) else None
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if served not in (None, self.hub_id):
            raise LvlmError(
                f"the server answers with the model {served!r}", where=self.client.url, expected=self.hub_id
            )
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise UnusableReply("a reply without choices")
        choice: dict[str, Any] = choices[0]
        return choice

    def _scored(self, reply: Any) -> Scored:
        self._choice(reply)
        entries = reply.get("prompt_logprobs", reply["choices"][0].get("prompt_logprobs"))
        if entries is None:
            raise LvlmError(
                "the server returns no log-probabilities of its prompts",
                where=self.client.url,
                expected="prompt_logprobs in its replies, as vLLM gives them, also for prompts with images",
                remedy="serve the model with vLLM; other servers can be asked (filter, prompting), not scored",
            )
        ids = reply.get("prompt_token_ids", reply["choices"][0].get("prompt_token_ids"))
        try:
            return _read_entries(entries, ids)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UnusableReply(f"prompt log-probabilities that cannot be read ({error})") from error


_SCORE = {
    "max_tokens": 1,
    "temperature": 0,
    "prompt_logprobs": 0,
    "return_token_ids": True,
    "add_generation_prompt": True,
}
_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}


def _read_entries(entries: Sequence[Any], ids: Sequence[int] | None) -> Scored:
    """``[null, {"id": {"logprob": ..., "decoded_token": ...}}, ...]``; of several in one place, the actual token's."""
    known = None if ids is None else [int(i) for i in ids]
    if not entries or entries[0] is not None or (known is not None and len(known) != len(entries)):
        raise ValueError(f"{len(entries)} entries for {0 if known is None else len(known)} tokens")
    found, values, texts = [known[0] if known else -1], [], []
    for place, entry in enumerate(entries[1:], 1):
        if known is None and len(entry) != 1:
            raise ValueError("several tokens in one place, and none named")
        name = str(known[place]) if known is not None else next(iter(entry))
        value = float(entry[name]["logprob"])
        if math.isnan(value):
            raise ValueError("NaN")
        found.append(int(name))
        values.append(value)
        texts.append(str(entry[name].get("decoded_token") or ""))
    return Scored(tuple(found), tuple(values), tuple(texts))


def _turns(question: str | Sequence[str]) -> list[str]:
    turns = [question] if isinstance(question, str) else list(question)
    if len(turns) % 2 == 0 or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise LvlmError("a question is empty, or a conversation does not end with one")
    return turns


def _data_url(frame: Image) -> str:
    stream = io.BytesIO()
    frame.save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _aligned(response: str, pieces: Sequence[str]) -> list[str]:
    """The part of the response that each token adds: joined they are the response again.

    Servers decode each token by itself: white space can be lost, and parts of a character are unreadable.
    """
    out, at = [], 0
    for piece in pieces:
        bare = piece if response.startswith(piece, at) else piece.strip()
        place = -1 if "\ufffd" in bare else response.find(bare, at)
        end = at if place < 0 else place + len(bare)
        out.append(response[at:end])
        at = end
    out[-1] += response[at:]
    return out
