"""What an attribution method is, and the registry that finds methods by entry point.

A method is a function ``(lvlm, episode, parameters) -> result`` over a prepared input, where the result is a
heat map (2-D array over the episode's frame, any resolution), a list of boxes in native pixels, or a full
:class:`Attribution`. Installed packages register methods in the entry-point group
``medground_bench.methods``; this project's own come in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import MethodError
from medground_bench.core.schema import Box

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = [
    "ENTRY_POINT_GROUP",
    "Attribution",
    "Method",
    "available_methods",
    "describe_methods",
    "from_heatmap",
    "get_method",
    "method",
]

ENTRY_POINT_GROUP = "medground_bench.methods"

NEEDS = ("white_box", "gradients", "generation", "detector", "segmenter", "references")
"""What a method may need beyond scoring the response: see ``medground-bench methods``."""


@dataclass(frozen=True)
class Attribution:
    """What a method says about one record.

    Attributes
    ----------
    boxes : list of Box
        Evidence boxes in native pixels, half-open, best first. Empty: the method named no evidence.
    heatmap : ndarray or None
        (h, w) float map over the episode's frame, any resolution (the token grid for token-level methods).
    concept : str or None
        Name of the anatomical concept the answer rests on.
    concept_scores : mapping of str to float
        Score of every concept, larger is more important.
    token_scores : ndarray or None
        (T,) score of every response token.
    fallback : bool
        No evidence passed the method's own threshold and the whole image is reported.
    degenerate : bool
        The heat map was constant, zero or not finite, and the whole image is reported.
    extras : mapping
        Anything else worth keeping, JSON-serialisable.
    """

    boxes: list[Box]
    heatmap: np.ndarray | None = None
    concept: str | None = None
    concept_scores: Mapping[str, float] = field(default_factory=dict)
    token_scores: np.ndarray | None = None
    fallback: bool = False
    degenerate: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)


MethodFunction = Callable[["Lvlm", "Episode", Any], Any]


@dataclass(frozen=True)
class Method:
    """A registered method: its function, its typed parameters and what users should know of it.

    Attributes
    ----------
    name : str
        Registered name.
    function : callable
        ``(lvlm, episode, parameters) -> heat map, boxes or Attribution``.
    family : str
        ``attention``, ``gradient``, ``relevance``, ``perturbation``, ``prompting``, ``concept``, ...
    parameters : type
        Dataclass of the method's parameters; every field has a default.
    needs : tuple of str
        Any of :data:`NEEDS`.
    cost : str
        Cost per record in passes, e.g. ``"1 F + 1 B"``.
    reference : str
        The paper it follows.
    """

    name: str
    function: MethodFunction
    family: str
    parameters: type
    needs: tuple[str, ...] = ()
    cost: str = ""
    reference: str = ""

    def make_parameters(self, overrides: Mapping[str, Any] | None = None) -> Any:
        """The method's parameters with some replaced.

        Raises
        ------
        MethodError
            If a parameter does not exist, has the wrong type or is refused by the method.
        """
        fields = {f.name: f for f in dataclasses.fields(self.parameters)}
        unknown = sorted(set(overrides or {}) - set(fields))
        if unknown:
            raise MethodError(
                f"method {self.name!r} has no parameter {', '.join(unknown)}",
                expected=", ".join(sorted(fields)) or "no parameters",
            )
        values = {name: self._typed(fields[name], value) for name, value in (overrides or {}).items()}
        try:
            return self.parameters(**values)
        except (TypeError, ValueError) as error:
            raise MethodError(f"method {self.name!r} refuses its parameters: {error}") from error

    def _typed(self, field: dataclasses.Field[Any], value: Any) -> Any:
        """The value, if it is of the type of the field's default (whole numbers count as floats)."""
        kind = type(field.default)
        if kind not in (bool, int, float, str):  # None, a factory, or anything else: the method's own business
            return value
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise MethodError(
                f"parameter {field.name} of method {self.name!r} cannot be {value!r}",
                expected=f"a value of type {kind.__name__}, such as the default {field.default!r}",
            )
        return value

    def run(self, lvlm: Lvlm, episode: Episode, parameters: Any = None) -> Attribution:
        """Run the method on one episode and turn what it returns into an :class:`Attribution`.

        Heat maps become boxes by the benchmark's protocol (90 % quantile of the positive values,
        8-connected components, at most 10 boxes; spec section 5) and boxes are native pixels.

        Raises
        ------
        MethodError
            If the function returns something else.
        """
        result = self.function(lvlm, episode, self.make_parameters() if parameters is None else parameters)
        if isinstance(result, Attribution):
            return result
        if isinstance(result, np.ndarray) and result.ndim == 2:
            return from_heatmap(result, episode)
        if isinstance(result, list | tuple) and all(
            isinstance(b, Sequence | np.ndarray) and len(b) == 4 for b in result
        ):
            return Attribution(boxes=[(float(b[0]), float(b[1]), float(b[2]), float(b[3])) for b in result])
        raise MethodError(
            f"method {self.name!r} returned {type(result).__name__}",
            expected="a 2-D array over the frame, a list of [x1, y1, x2, y2] in native pixels, or an Attribution",
        )


def from_heatmap(heatmap: np.ndarray, episode: Episode, **fields: Any) -> Attribution:
    """An attribution from a heat map over the episode's frame, by the benchmark's box protocol.

    A constant, zero or non-finite map names no evidence: it yields the whole image, marked ``degenerate``.
    """
    from medground_bench.imaging import heatmap_to_boxes, is_degenerate, resize_heatmap

    box = episode.letterbox
    if is_degenerate(heatmap):
        whole: Box = (0.0, 0.0, float(box.width), float(box.height))
        return Attribution(boxes=[whole], heatmap=np.asarray(heatmap), degenerate=True, **fields)
    frame = resize_heatmap(heatmap, (box.frame_height, box.frame_width))
    return Attribution(boxes=box.to_native(heatmap_to_boxes(frame)), heatmap=np.asarray(heatmap), **fields)


@dataclass(frozen=True)
class NoParameters:
    """Parameters of a method that has none."""


def method(
    name: str,
    *,
    family: str,
    parameters: type = NoParameters,
    needs: Iterable[str] = (),
    cost: str = "",
    reference: str = "",
) -> Callable[[MethodFunction], Method]:
    """Decorator that makes a :class:`Method` of a function; point an entry point at the result.

    Raises
    ------
    MethodError
        If ``needs`` holds an unknown word.
    """
    needs = tuple(needs)
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise MethodError(f"method {name!r} needs unknown {', '.join(unknown)}", expected=", ".join(NEEDS))

    def wrap(function: MethodFunction) -> Method:
        return Method(name, function, family, parameters, needs, cost, reference)

    return wrap


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    """Name -> what is registered under it; more than one when packages clash."""
    found: dict[str, dict[str, metadata.EntryPoint]] = {}
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry.name, {}).setdefault(entry.value, entry)  # one package found twice is no clash
    return {name: list(entries.values()) for name, entries in found.items()}


def available_methods() -> list[str]:
    """Names of the registered methods, sorted."""
    return sorted(_entry_points())


def get_method(name: str) -> Method:
    """The registered method of that name.

    Raises
    ------
    MethodError
        If no installed package registers it, two packages do, or what is registered cannot be imported, is not a
        method or calls itself by another name.
    """
    entries = _entry_points().get(name)
    if not entries:
        raise MethodError(f"no method named {name!r}", expected=f"one of {', '.join(available_methods())}")
    if len(entries) > 1:
        raise MethodError(
            f"method {name!r} is registered by more than one package: {', '.join(e.value for e in entries)}",
            remedy="uninstall one of them",
        )
    (entry,) = entries
    try:
        found = entry.load()
    except (ImportError, AttributeError) as error:
        raise MethodError(
            f"method {name!r} cannot be imported from {entry.value}: {error}",
            remedy='install what it needs, e.g. pip install "medground-bench[all]"',
        ) from error
    if not isinstance(found, Method):
        raise MethodError(
            f"{entry.value} is not a method", expected="an object made by @medground_bench.attribution.method.method"
        )
    if found.name != name:
        raise MethodError(
            f"{entry.value} is registered as {name!r} and calls itself {found.name!r}", expected="the same name in both"
        )
    return found


def describe_methods() -> list[dict[str, Any]]:
    """What every registered method says of itself, JSON-serialisable, sorted by family and name.

    Returns
    -------
    list of dict
        ``name``, ``family``, ``needs``, ``cost``, ``reference``, ``parameters`` (name -> default) and ``error``:
        the reason why a method cannot be used, else None. One broken package does not hide the others.
    """
    out: list[dict[str, Any]] = []
    for name in available_methods():
        try:
            found = get_method(name)
        except MethodError as error:
            empty = {"family": "", "needs": [], "cost": "", "reference": "", "parameters": {}}
            out.append({"name": name, **empty, "error": str(error)})
            continue
        parameters = {k: _json_default(v) for k, v in dataclasses.asdict(found.make_parameters()).items()}
        out.append(
            {
                "name": name,
                "family": found.family,
                "needs": list(found.needs),
                "cost": found.cost,
                "reference": found.reference,
                "parameters": parameters,
                "error": None,
            }
        )
    return sorted(out, key=lambda entry: (entry["error"] is not None, entry["family"], entry["name"]))


def _json_default(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
