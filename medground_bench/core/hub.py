"""The Hugging Face Hub: what a repository is called, and what goes wrong on the way there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from medground_bench.core.errors import MedGroundError, PublishError

__all__ = ["hub_errors", "is_repo_id", "require_repo_id"]

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


@contextlib.contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Turn what goes wrong between here and the Hub into a :class:`PublishError`.

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
            429: "wait and push again: what was uploaded is not uploaded twice",
        }.get(status or 0, "check the connection and push again: what was uploaded is not uploaded twice")
        if type(error).__name__ == "OfflineModeIsEnabled":
            remedy = "unset HF_HUB_OFFLINE"
        message = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PublishError(
            f"the hub refused or could not be reached: {message}", where=repo_id, remedy=remedy
        ) from error
