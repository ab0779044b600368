from __future__ import annotations

import pickle

import pytest

from medground_bench.core import errors
from medground_bench.core.errors import MedGroundError, SourceError

KINDS = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)]


def test_message_has_all_its_parts() -> None:
    error = SourceError("a row is cut off", where="a.csv:3", expected="six fields", remedy="fetch it again")
    assert str(error) == "a.csv:3: a row is cut off\n  expected: six fields\n  to do: fetch it again"
    assert str(SourceError("plain")) == "plain"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_the_way_back_from_a_worker_process(kind: type[MedGroundError]) -> None:
    error = pickle.loads(pickle.dumps(kind("m", where="w", expected="e", remedy="r")))  # noqa: S301 - our own bytes
    assert type(error) is kind
    assert (error.message, error.where, error.expected, error.remedy) == ("m", "w", "e", "r")
    assert isinstance(error, MedGroundError)
