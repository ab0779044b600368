"""``openai:MODEL@http://HOST:PORT/v1``: which model at which server, and whether radiographs may go there."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import LVLMS

__all__ = ["ALLOWED_VARIABLE", "KEY_VARIABLE", "PREFIX", "Address", "api_key", "parse_address"]

PREFIX = "openai:"
KEY_VARIABLE = "MEDGROUND_SERVER_KEY"
"""Environment variable with the server's key: never an argument, never in a file or a log."""
ALLOWED_VARIABLE = "MEDGROUND_SERVER_ALLOW"
"""Environment variable with the name of a server beyond this network to which radiographs may be sent."""

_PATTERN = re.compile(r"openai:(?P<model>\S+)@(?P<url>https?://\S+)")
_EXPECTED = "openai:MODEL@http://HOST:PORT/v1"
_LOCAL = (".local", ".internal", ".lan", ".localdomain")


@dataclass(frozen=True)
class Address:
    """A model at a server.

    Attributes
    ----------
    model : str
        The name it is served under.
    url : str
        Base of the API, without a slash at its end.
    """

    model: str
    url: str

    @property
    def key(self) -> str:
        """Name of the LVLM in records: the benchmark's key of that hub id, else the last part of the model's name."""
        known = {hub_id: key for key, hub_id in LVLMS.items()}
        return known.get(self.model, self.model.rstrip("/").rpartition("/")[2])


def parse_address(text: str) -> Address:
    """The model and the server that a ``--lvlm openai:...`` names.

    Raises
    ------
    LvlmError
        If it is none, holds a password, or names a server beyond this network that nobody has allowed.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise LvlmError("this names no model at a server", where=_without_user(text), expected=_EXPECTED)
    parts = urlsplit(found["url"])
    if parts.username is not None or parts.password is not None:
        raise LvlmError(
            "a key or password stands in the address",
            where=_without_user(text),
            expected=_EXPECTED,
            remedy=f"put the key into the environment variable {KEY_VARIABLE}",
        )
    if not parts.hostname or parts.query or parts.fragment:
        raise LvlmError("the address of the server is not one", where=text, expected=_EXPECTED)
    host = parts.hostname
    near = _near(host)
    if not near and host not in os.environ.get(ALLOWED_VARIABLE, "").split(","):
        raise LvlmError(
            f"{host} is beyond this network, and radiographs would be sent there",
            expected="a server on this machine or network",
            remedy=f"where the licences of your images allow it, set {ALLOWED_VARIABLE}={host}",
        )
    if not near and parts.scheme != "https":
        raise LvlmError("radiographs and key would travel unencrypted", where=text, expected="https://")
    return Address(found["model"], found["url"].rstrip("/"))


def api_key() -> str | None:
    """The server's key from the environment.

    Raises
    ------
    LvlmError
        If it holds what a header cannot.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise LvlmError(f"{KEY_VARIABLE} is no key", expected="printable ASCII characters")
    return key or None


def _without_user(text: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", text)


def _near(host: str) -> bool:
    """Whether a host is this machine or on this network, as far as its name tells."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_LOCAL)
    return address.is_private or address.is_loopback or address.is_link_local
