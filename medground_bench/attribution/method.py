"""What an attribution method is, and the registry that finds methods by entry point.

A method is a function ``(lvlm, episode, parameters)`` over a prepared input that returns a heat map, boxes or a full
:class:`~medground_bench.attribution.results.Attribution` (see :mod:`medground_bench.attribution.results`). Installed
packages register methods in the entry-point group ``medground_bench.methods``; this project's own come in the same way.
A plain function ``(lvlm, episode, **options)`` becomes a method by :func:`as_method`.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, TypeAlias

from medground_bench.attribution.results import Attribution, Over, as_attribution, from_heatmap
from medground_bench.core.errors import MethodError, nearest

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = [
    "ENTRY_POINT_GROUP",
    "PROVIDER_GROUP",
    "Attribution",
    "Method",
    "MethodLike",
    "as_method",
    "available_methods",
    "describe_methods",
    "from_heatmap",
    "get_method",
    "method",
]

ENTRY_POINT_GROUP = "medground_bench.methods"
PROVIDER_GROUP = "medground_bench.method_providers"
"""Entry points ``PREFIX = callable(NAME) -> Method``, for methods that are asked for as ``PREFIX:NAME``."""

NEEDS = (
    *("white_box", "geometry", "gradients", "generation", "detector", "segmenter", "localizer", "references"),
    *("calibration", "two_towers", "scikit_image", "scikit_learn"),
)
"""What a method may need beyond scoring the response: see ``medground-bench methods``."""


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,95}")


MethodFunction = Callable[["Lvlm", "Episode", Any], Any]

MethodLike: TypeAlias = "str | Method | Callable[..., Any]"
"""What names a method: its registered name, itself, or a plain function (see :func:`as_method`)."""


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
    signed : bool
        Its heat maps have negative values, which speak against the response: boxes come from their positive part.
    question_aware : bool
        Whether another question about the same image can change the map.
    over : {"frame", "native"} or None
        What its heat maps lie over at any resolution; None: told by their shape.
    provenance : mapping of str to str
        What else identifies it, for the submission: of a plain function, its name and a checksum of its code.
    """

    name: str
    function: MethodFunction
    family: str
    parameters: type
    needs: tuple[str, ...] = ()
    cost: str = ""
    reference: str = ""
    signed: bool = False
    over: Over | None = None
    question_aware: bool = True
    provenance: Mapping[str, str] = field(default_factory=dict, hash=False)

    def named(self, name: str) -> Method:
        """The same method under another name, so that variants of it lie beside each other; provenance says whose.

        Raises
        ------
        MethodError
            If the name cannot be that of a folder.

        Examples
        --------
        >>> @method("darkness", family="control", over="frame")
        ... def darkness(lvlm, episode, parameters):
        ...     return 255 - np.asarray(episode.frame.convert("L"), float)
        >>> darkness.named("darkness_squared").provenance
        {'variant_of': 'darkness'}
        """
        if not _NAME.fullmatch(name):
            raise MethodError(
                f"{name!r} is no name of a method", expected="up to 96 letters, digits or . _ + -, the first no sign"
            )
        return dataclasses.replace(self, name=name, provenance={**self.provenance, "variant_of": self.name})

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
                remedy=nearest(unknown[0], fields),
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

        Heat maps become boxes by the benchmark's protocol (see
        :func:`~medground_bench.attribution.results.from_heatmap`); boxes are native pixels.

        Raises
        ------
        MethodError
            If the function returns something else, or boxes that are none.
        """
        result = self.function(lvlm, episode, self.make_parameters() if parameters is None else parameters)
        try:
            return as_attribution(result, episode, over=self.over, signed=self.signed)
        except MethodError as error:
            raise MethodError(
                f"method {self.name!r} returned {error.message}", expected=error.expected, remedy=error.remedy
            ) from error


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
    signed: bool = False,
    over: Over | None = None,
    question_aware: bool = True,
) -> Callable[[MethodFunction], Method]:
    """Decorator that makes a :class:`Method` of a function; point an entry point at the result.

    The arguments are the attributes of :class:`Method`.

    Examples
    --------
    >>> @method("darkness", family="control", over="frame")
    ... def darkness(lvlm, episode, parameters):
    ...     return 255 - np.asarray(episode.frame.convert("L"), float)
    >>> darkness.name
    'darkness'

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
        return Method(name, function, family, parameters, needs, cost, reference, signed, over, question_aware)

    return wrap


def as_method(what: MethodLike) -> Method:
    """A method from its registered name, from itself, or from a plain function.

    Parameters
    ----------
    what : str, Method or callable
        A function takes ``(lvlm, episode)`` and any named options, which are the method's parameters; it is called by
        the name of the function. What it returns is read as of any method.

    Raises
    ------
    MethodError
        If no such method is registered, or the function does not take an LVLM and an episode.

    Examples
    --------
    >>> def corner(lvlm, episode, size=32):
    ...     return [[0, 0, size, size]]
    >>> as_method(corner).make_parameters({"size": 64})
    CornerOptions(size=64)
    """
    if isinstance(what, Method):
        return what
    if isinstance(what, str):
        return get_method(what)
    if not callable(what):
        raise MethodError(f"{what!r} is not a method", expected="a registered name, a Method or a function")
    name = getattr(what, "__name__", type(what).__name__)
    name = name if name.isidentifier() else "function"  # a lambda
    try:
        signature = inspect.signature(what)
        signature.bind_partial(None, None)
    except (TypeError, ValueError) as error:
        raise MethodError(
            f"{name} is called as a method with an LVLM and an episode, and does not take them: {error}",
            expected="a function (lvlm, episode, **options)",
        ) from error
    all_ = list(signature.parameters.values())
    taken = [p for p in all_ if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    named = [p for p in all_ if p not in taken and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Method(
        name,
        lambda lvlm, episode, values: what(lvlm, episode, **{p.name: getattr(values, p.name) for p in named}),
        "function",
        _options(name, named),
        provenance={"function": f"{getattr(what, '__module__', '')}.{name}", "code": _code_checksum(what)},
    )


def _options(name: str, parameters: Iterable[inspect.Parameter]) -> type:
    """A dataclass of a function's named options."""
    fields: list[tuple[str, Any, Any]] = []
    for p in parameters:
        if p.default is p.empty:
            fields.append((p.name, Any, field()))
        else:  # through a factory, so that a list may be a default
            shared = type(p.default).__hash__ is not None
            made = field(default=p.default) if shared else field(default_factory=partial(copy.deepcopy, p.default))
            fields.append((p.name, Any, made))
    title = "".join(part.capitalize() for part in name.split("_"))
    return dataclasses.make_dataclass(f"{title}Options", fields, frozen=True, kw_only=True)


def _code_checksum(function: Callable[..., Any]) -> str:
    """Short checksum of a function's source, or of its bytecode where there is no source; not of what it calls."""
    try:
        code = inspect.getsource(function).encode()
    except (OSError, TypeError):
        compiled = getattr(function, "__code__", None)
        code = b"" if compiled is None else compiled.co_code + repr(compiled.co_consts).encode()
    return hashlib.sha256(code).hexdigest()[:16]


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
    """The registered method of that name, or a provider's (``captum:IntegratedGradients``).

    Raises
    ------
    MethodError
        If no installed package registers it, two packages do, or what is registered cannot be imported, is not a
        method or calls itself by another name.
    """
    if ":" in name:
        return _provided(name)
    entries = _entry_points().get(name)
    if not entries:
        raise MethodError(
            f"no method named {name!r}",
            expected=f"one of {', '.join(available_methods())}",
            remedy=nearest(name, available_methods()),
        )
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


def _provided(name: str) -> Method:
    """The method ``PREFIX:NAME`` of the provider that is registered under the prefix."""
    prefix, _, inner = name.partition(":")
    providers = {entry.name: entry for entry in metadata.entry_points(group=PROVIDER_GROUP)}
    if prefix not in providers:
        raise MethodError(f"no provider of methods named {prefix!r}", expected=", ".join(sorted(providers)) or "none")
    try:
        provide = providers[prefix].load()
    except (ImportError, AttributeError) as error:
        raise MethodError(f"provider {prefix!r} cannot be imported: {error}") from error
    found: Method = provide(inner)
    return found


def describe_methods() -> list[dict[str, Any]]:
    """What every registered method says of itself, JSON-serialisable, sorted by family and name.

    Returns
    -------
    list of dict
        ``name``, ``family``, ``formula`` (the first paragraph of its docstring), ``needs``, ``cost``, ``signed``,
        ``question_aware``, ``reference``, ``parameters`` (name -> default) and ``error``: the reason why a method
        cannot be used, else None. One broken package does not hide the others.
    """
    out: list[dict[str, Any]] = []
    for name in available_methods():
        try:
            found = get_method(name)
        except MethodError as error:
            empty = {"family": "", "formula": "", "needs": [], "cost": "", "signed": False, "question_aware": True}
            out.append({"name": name, **empty, "reference": "", "parameters": {}, "error": str(error)})
            continue
        parameters = {k: _json_default(v) for k, v in dataclasses.asdict(found.make_parameters()).items()}
        out.append(
            {
                "name": name,
                "family": found.family,
                "formula": _first_paragraph(found.function),
                "needs": list(found.needs),
                "cost": found.cost,
                "signed": found.signed,
                "question_aware": found.question_aware,
                "reference": found.reference,
                "parameters": parameters,
                "error": None,
            }
        )
    return sorted(out, key=lambda entry: (entry["error"] is not None, entry["family"], entry["name"]))


def _first_paragraph(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def _json_default(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
