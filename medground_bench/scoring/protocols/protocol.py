"""What a protocol is, and the registry that finds protocols by entry point.

A protocol asks one question of a submission. It is a function ``(case, parameters)`` over one record, where the
:class:`~medground_bench.scoring.protocols.case.Case` has what the submission says about the record and, where the
protocol needs it, the LVLM's view of it. It returns the numbers that its measures name, or raises :class:`Skip`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from medground_bench.core.errors import ScoringError

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = [
    "ENTRY_POINT_GROUP",
    "NEEDS",
    "Measure",
    "NoParameters",
    "Protocol",
    "Skip",
    "Table",
    "available_protocols",
    "get_protocol",
    "protocol",
]

ENTRY_POINT_GROUP = "medground_bench.protocols"

NEEDS = ("heatmaps", "signed", "masks", "lvlm", "weights", "editor", "method", "sources", "reason")
"""What a protocol may need beyond the boxes: heat maps in the submission; signed ones; masks; the LVLM whose answers
they explain; its weights too; a counterfactual editor; the submission's method, installed, to run it on other inputs;
sources of the records, for what they know of patients and masks; records of the mode ``reason``."""


class Skip(Exception):
    """A record that a protocol does not apply to, with the reason, which is counted."""


@dataclass(frozen=True)
class Measure:
    """One number of a protocol.

    Attributes
    ----------
    name : str
        Key of the number.
    title : str
        What it says, in a few words.
    better : {"high", "low", ""}
        Which end is the good one; empty where neither is.
    bounds : (float, float)
        What it can be at least and at most: intervals are cut to it.
    chance : float, str or None
        What a map that knows nothing has: a number, or the measure that holds it; None where that is not known.
    """

    name: str
    title: str = ""
    better: Literal["high", "low", ""] = "high"
    bounds: tuple[float, float] = (-math.inf, math.inf)
    chance: float | str | None = None


@dataclass(frozen=True)
class Table:
    """A further table of a protocol, over all its records: subgroups, strata, thresholds.

    Attributes
    ----------
    title : str
        What it shows.
    rows : sequence of mapping
        Rows with the same keys: texts and numbers.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class NoParameters:
    """Parameters of a protocol that has none."""


Evaluate = Callable[["Case", Any], Mapping[str, float]]
Summarise = Callable[["Trial", Mapping[str, Mapping[str, float]], Any], "Sequence[Table]"]


@dataclass(frozen=True)
class Protocol:
    """A registered protocol.

    Attributes
    ----------
    name : str
        Registered name.
    asks : str
        The question, in one sentence.
    measures : tuple of Measure
        Its numbers, the one to read first in front.
    function : callable
        ``(case, parameters) -> {measure: number}``; a number that does not exist is NaN or left out. What is for
        ``summarise`` alone has a name that begins with an underscore, and is not in the result.
    needs : tuple of str
        Any of :data:`NEEDS`.
    parameters : type
        Dataclass of its parameters; every field has a default.
    cost : str
        Passes per record and submission.
    reference : str
        The paper it follows.
    note : str
        What a reader of its numbers must know.
    summarise : callable or None
        ``(trial, {record id: numbers}, parameters) -> tables`` over all records.
    optimised_by : tuple of str
        Methods that search for the map which this protocol rewards: their results say so.
    """

    name: str
    asks: str
    measures: tuple[Measure, ...]
    function: Evaluate
    needs: tuple[str, ...] = ()
    parameters: type = NoParameters
    cost: str = "0 F"
    reference: str = ""
    note: str = ""
    summarise: Summarise | None = field(default=None, compare=False)
    optimised_by: tuple[str, ...] = ()

    def make_parameters(self, overrides: Mapping[str, Any] | None = None) -> Any:
        """The protocol's parameters with some replaced.

        Raises
        ------
        ScoringError
            If a parameter does not exist or is refused.
        """
        known = {f.name for f in dataclasses.fields(self.parameters)}
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in (overrides or {}).items()}
        unknown = sorted(set(given) - known)
        if unknown:
            raise ScoringError(
                f"protocol {self.name!r} has no parameter {', '.join(unknown)}",
                expected=", ".join(sorted(known)) or "no parameters",
            )
        try:
            return self.parameters(**given)
        except (TypeError, ValueError) as error:
            raise ScoringError(f"protocol {self.name!r} refuses its parameters: {error}") from error


def protocol(
    name: str,
    *,
    asks: str,
    measures: Sequence[Measure],
    needs: Sequence[str] = (),
    parameters: type = NoParameters,
    cost: str = "0 F",
    reference: str = "",
    note: str = "",
    summarise: Summarise | None = None,
    optimised_by: Sequence[str] = (),
) -> Callable[[Evaluate], Protocol]:
    """Decorator that makes a :class:`Protocol` of a function; point an entry point at the result.

    Raises
    ------
    ScoringError
        If ``needs`` holds an unknown word.
    """
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise ScoringError(f"protocol {name!r} needs unknown {', '.join(unknown)}", expected=", ".join(NEEDS))

    def wrap(function: Evaluate) -> Protocol:
        texts = (cost, reference, note)
        return Protocol(
            name, asks, tuple(measures), function, tuple(needs), parameters, *texts, summarise, tuple(optimised_by)
        )

    return wrap


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    found: dict[str, dict[str, metadata.EntryPoint]] = {}
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: list(entries.values()) for name, entries in found.items()}


def available_protocols() -> list[str]:
    """Names of the registered protocols, sorted."""
    return sorted(_entry_points())


def get_protocol(name: str) -> Protocol:
    """The registered protocol of that name.

    Raises
    ------
    ScoringError
        If no installed package registers it, two do, or what is registered is no protocol of that name.
    """
    entries = _entry_points().get(name)
    if not entries:
        near = difflib.get_close_matches(name, available_protocols(), n=3, cutoff=0.6)
        raise ScoringError(
            f"no protocol named {name!r}",
            expected=f"one of {', '.join(available_protocols())}",
            remedy=f"did you mean {' or '.join(map(repr, near))}?" if near else None,
        )
    if len(entries) > 1:
        raise ScoringError(
            f"protocol {name!r} is registered by more than one package: {', '.join(e.value for e in entries)}",
            remedy="uninstall one of them",
        )
    try:
        found = entries[0].load()
    except (ImportError, AttributeError) as error:
        raise ScoringError(f"protocol {name!r} cannot be imported from {entries[0].value}: {error}") from error
    if not isinstance(found, Protocol) or found.name != name:
        raise ScoringError(
            f"{entries[0].value} is not the protocol {name!r}",
            expected="an object made by @medground_bench.scoring.protocols.protocol.protocol, of the same name",
        )
    return found
