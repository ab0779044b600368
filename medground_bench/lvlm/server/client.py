"""Requests to an OpenAI-compatible server: many at a time, within bounds, tried again when that may help."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from medground_bench.core.errors import LvlmError, MissingDependencyError, printable
from medground_bench.lvlm.server.address import KEY_VARIABLE

if TYPE_CHECKING:
    import httpx

__all__ = ["Client", "Limits", "UnusableReply"]

T = TypeVar("T")

_AGAIN = frozenset([408, 409, 425, 429, 500, 502, 503, 504])
"""Statuses after which the same request may succeed."""
_LONGEST_WAIT = 60.0


class UnusableReply(ValueError):
    """A reply that is not what was asked for: the request is made again, and then given up."""


@dataclass(frozen=True)
class Limits:
    """How a server is asked.

    Attributes
    ----------
    requests : int
        Most requests in flight.
    timeout : float
        Seconds for one of them.
    attempts : int
        How often a request is made before it is given up.
    backoff : float
        Seconds before the second attempt; they double with each, and are drawn from half to one and a half of that. A
        server that says how long to wait (``Retry-After``) is obeyed, up to a minute.
    """

    requests: int = 16
    timeout: float = 300.0
    attempts: int = 6
    backoff: float = 0.5

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, with ``MEDGROUND_SERVER_REQUESTS``, ``_TIMEOUT`` and ``_ATTEMPTS`` in place of what they set.

        Raises
        ------
        LvlmError
            If one of them is no positive number.
        """
        found: dict[str, Any] = {}
        for name, kind in (("requests", int), ("timeout", float), ("attempts", int)):
            variable = f"MEDGROUND_SERVER_{name.upper()}"
            if text := os.environ.get(variable):
                try:
                    found[name] = kind(text)
                except ValueError:
                    found[name] = 0
                if not 0 < found[name] < float("inf"):
                    raise LvlmError(f"{variable} is {text!r}", expected="a positive number")
        return cls(**found)


class Client:
    """Requests to one server, from any thread, with or without an event loop of its own.

    Parameters
    ----------
    url : str
        Base of the API.
    key : str, optional
        Sent as the bearer token to this server and to no other (redirections are not followed); cut out of whatever
        a message would show.
    limits : Limits
        How it is asked.
    """

    def __init__(self, url: str, key: str | None = None, limits: Limits | None = None) -> None:
        self.url = url
        self.limits = limits or Limits()
        self._key = key
        self._loops: dict[int, asyncio.AbstractEventLoop] = {}
        self._clients: dict[int, httpx.AsyncClient] = {}

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def get(self, path: str, *, attempts: int | None = None) -> Any:
        """The JSON under a path: below the API, or from the server's root with a slash before it."""
        url = path if not path.startswith("/") else self.url.partition("://")[0] + "://" + self._host() + path
        return self._run(self._exchange("GET", url, None, lambda reply: reply, attempts or self.limits.attempts))

    def post_all(
        self,
        path: str,
        count: int,
        body: Callable[[int], dict[str, Any]],
        read: Callable[[int, Any], T],
    ) -> list[T]:
        """Post ``body(0), body(1), ...`` and read the replies, in order.

        Bodies are made when their turn comes. The first request that is given up ends the others.

        Parameters
        ----------
        path : str
            Below the API.
        count : int
            How many.
        body : callable
            Number -> JSON.
        read : callable
            (number, JSON) -> what it says; raises :class:`UnusableReply` where it is not what was asked for.

        Raises
        ------
        LvlmError
            If the server cannot be reached, refuses, or does not give a usable reply in so many attempts.
        """
        out: list[Any] = [None] * count

        async def all_of_them() -> None:
            numbers = iter(range(count))

            async def worker() -> None:
                for n in numbers:
                    out[n] = await self._exchange("POST", path, body(n), partial(read, n), self.limits.attempts)

            workers = [asyncio.ensure_future(worker()) for _ in range(min(count, self.limits.requests))]
            try:
                await asyncio.gather(*workers)
            finally:
                for one in workers:
                    one.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

        self._run(all_of_them())
        return out

    # -- one request ----------------------------------------------------------------------------------------------

    async def _exchange(
        self, method: str, path: str, body: dict[str, Any] | None, read: Callable[[Any], T], attempts: int
    ) -> T:
        import httpx

        url = path if "://" in path else f"{self.url}/{path}"
        failure = ""
        for attempt in range(attempts):
            wait = min(_LONGEST_WAIT, self.limits.backoff * 2**attempt) * random.uniform(0.5, 1.5)
            try:
                reply = await self._client().request(method, url, json=body)
                if 300 <= reply.status_code < 400:
                    raise LvlmError("the server sends requests elsewhere", where=self.url, expected="no redirection")
                if reply.status_code in _AGAIN:
                    failure = f"status {reply.status_code}: {self._said(reply)}"
                    wait = min(_LONGEST_WAIT, max(wait, _retry_after(reply)))
                elif reply.status_code >= 400:
                    raise self._refused(reply)
                else:
                    return read(json.loads(reply.content))
            except (httpx.TransportError, httpx.DecodingError) as error:
                failure = f"{type(error).__name__}: {self._shown(str(error))}".rstrip(": ")
            except UnusableReply as error:
                failure = self._shown(str(error))
            except ValueError:
                failure = "the reply is no JSON"
            if attempt + 1 < attempts:
                await asyncio.sleep(wait)
        raise LvlmError(
            f"no usable reply in {attempts} attempt(s), the last: {failure}",
            where=self.url,
            expected="an OpenAI-compatible server that answers there",
            remedy="see whether the server runs and what its log says; run the same command again to resume",
        )

    def _refused(self, reply: httpx.Response) -> LvlmError:
        said = self._said(reply)
        if reply.status_code in (401, 403):
            return LvlmError(
                f"the server does not let us in (status {reply.status_code})",
                where=self.url,
                remedy=f"put its key into the environment variable {KEY_VARIABLE}",
            )
        if reply.status_code in (404, 405):
            return LvlmError(
                f"the server does not know what it was asked for (status {reply.status_code}): {said}",
                where=self.url,
                expected="an OpenAI-compatible server (GET /models, POST /chat/completions) under this address",
                remedy="the address usually ends in /v1",
            )
        return LvlmError(f"the server refuses (status {reply.status_code}): {said}", where=self.url)

    def _said(self, reply: httpx.Response) -> str:
        """The server's own words, without anything that a terminal obeys."""
        try:
            said = json.loads(reply.content)
            error = said.get("error", said) if isinstance(said, dict) else said
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except ValueError:
            text = reply.text
        return self._shown(text)

    def _shown(self, text: str) -> str:
        text = printable(" ".join(text.split()))[:300]
        return text.replace(self._key, "...") if self._key else text

    # -- the loop behind it ---------------------------------------------------------------------------------------

    def _client(self) -> httpx.AsyncClient:
        import httpx

        pid = os.getpid()
        if pid not in self._clients:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            self._clients[pid] = httpx.AsyncClient(
                headers=headers,
                timeout=self.limits.timeout,
                limits=httpx.Limits(max_connections=self.limits.requests),
                follow_redirects=False,
                trust_env=False,  # no key from a netrc, no proxy that nobody named
            )
        return self._clients[pid]

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to its end in the loop's thread: the caller may be a notebook, whose own loop is running."""
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            work.close()
            raise MissingDependencyError(
                "a server is asked with the package httpx", remedy="pip install 'medground-bench[lvlm]'"
            ) from error
        pid = os.getpid()  # a forked process has no thread of its parent's
        if pid not in self._loops:
            self._loops[pid] = asyncio.new_event_loop()
            threading.Thread(target=self._loops[pid].run_forever, name="server", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(work, self._loops[pid])
        try:
            return future.result()
        except (KeyboardInterrupt, CancelledError):
            future.cancel()
            raise

    def _host(self) -> str:
        return self.url.partition("://")[2].partition("/")[0]


def _retry_after(reply: httpx.Response) -> float:
    try:
        return max(0.0, float(reply.headers.get("retry-after", 0)))
    except ValueError:
        return 0.0
