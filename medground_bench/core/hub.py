"""The Hugging Face Hub: what a repository is called, and what goes wrong on the way there."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from medground_bench.core.errors import MedGroundError, PublishError

__all__ = ["hub_errors", "is_repo_id", "local_only", "require_repo_id"]

PATIENCE = 2.0
"""Seconds that a first sign of the Hub is waited for; its libraries try for minutes."""

_LIBRARIES = ("huggingface_hub", "httpx", "httpcore", "requests", "urllib3", "hf_xet")


def is_repo_id(text: str) -> bool:
    """Whether a text can be ``ORG/NAME``: the Hub's own rule, and both parts in ASCII, which its rule leaves open."""
    if not re.fullmatch(r"[\x21-\x7e]+/[\x21-\x7e]+", text):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return True


def require_repo_id(text: str, example: str) -> None:
    """Refuse what cannot be ``ORG/NAME``.

    Raises
    ------
    PublishError
        With ``example`` as what was expected.
    """
    if not is_repo_id(text):
        raise PublishError(f"{text!r} is not a repository", expected=f"ORG/NAME, such as {example}")


def local_only(folder_or_id: str, option: str) -> bool:
    """Whether a model must come from this machine's files alone (``local_files_only``), asked before it is loaded.

    Parameters
    ----------
    folder_or_id : str
        A folder, or a repository of the Hub.
    option : str
        What takes a local folder instead, for the message.

    Raises
    ------
    MedGroundError
        If it is a repository of which nothing is in the cache, and the Hub gives no sign within :data:`PATIENCE`
        seconds (or the libraries are told to be offline).
    """
    if Path(folder_or_id).exists() or not is_repo_id(folder_or_id):
        return False  # a folder, or what the library refuses by itself
    from huggingface_hub import constants, try_to_load_from_cache

    offline = constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE", "").lower() in (
        "1",
        "on",
        "yes",
        "true",
    )
    if not offline and _answers(constants.ENDPOINT):
        return False
    if isinstance(try_to_load_from_cache(folder_or_id, "config.json"), str):
        return True
    why = "the libraries are told to be offline" if offline else f"{constants.ENDPOINT} cannot be reached"
    raise MedGroundError(
        f"it is not on this machine, and {why}",
        where=folder_or_id,
        remedy=f"download it on a machine with network access and give its folder as {option}"
        + ("; or unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE" if offline else ""),
    )


def _answers(endpoint: str) -> bool:
    """Whether a server accepts a connection; taken for granted behind a proxy, which is not ours to try."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    parts = urlsplit(endpoint)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    reached = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((parts.hostname or "", port), timeout=PATIENCE):
            reached.set()

    # In a thread of its own: the look-up of a name cannot be given a time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return reached.is_set()


@contextlib.contextmanager
def hub_errors(repo_id: str, verb: str = "push") -> Iterator[None]:
    """Turn what goes wrong between here and the Hub into a :class:`PublishError`; ``verb`` is what to do once more.

    A file of ours that cannot be read is not the Hub's fault: such an :class:`OSError`, which names its file, passes.
    """
    try:
        yield
    except MedGroundError:
        raise
    except Exception as error:
        from_hub = type(error).__module__.startswith(_LIBRARIES)
        if not from_hub and not (isinstance(error, OSError) and error.filename is None):
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        remedy = {
            401: "log in with 'hf auth login' (a token that may write)",
            403: "use a token that may write to this organisation",
            404: "check the organisation's name, and log in with 'hf auth login'",
            429: f"wait and {verb} again: what was uploaded is not uploaded twice",
        }.get(status or 0, f"check the connection and {verb} again: what was uploaded is not uploaded twice")
        if type(error).__name__ == "OfflineModeIsEnabled":
            remedy = "unset HF_HUB_OFFLINE"
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PublishError(
            f"the hub refused or could not be reached: {message}", where=repo_id, remedy=remedy
        ) from error
