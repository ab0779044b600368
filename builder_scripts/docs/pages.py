"""Pages that say what the code's own tables say: methods, protocols, commands, the Python face, dataset columns."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer.main
from sphinx.ext.napoleon.docstring import NumpyDocstring

import medground_bench as mgb
from medground_bench.attribution.method import Method, available_methods, get_method
from medground_bench.cli import app
from medground_bench.dataset.columns import TABLE
from medground_bench.scoring.protocols.protocol import available_protocols, get_protocol
from medground_bench.submission.format import HEADER_KEYS, REQUIRED_HEADER, ROW_KEYS

from .pictures import FOLDER

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.protocol import Protocol

__all__ = ["write_pages"]


def write_pages(out: Path) -> list[str]:
    """Write every generated page below ``out``, those that changed; what is there and no page is removed.

    Returns
    -------
    list of str
        Their names, relative to ``out``.
    """
    pages = {"python.rst": _python(), "commands.rst": _commands(), "columns.rst": _columns(), "keys.rst": _keys()}
    methods = [get_method(name) for name in available_methods()]
    protocols = [get_protocol(name) for name in available_protocols()]
    pages["methods/index.rst"] = _methods(methods)
    pages["protocols/index.rst"] = _protocols(protocols)
    known = json.loads((FOLDER / "methods.json").read_text(encoding="utf-8"))
    pages |= {f"methods/{_slug(m.name)}.rst": _method(m, known.get(m.name, {})) for m in methods}
    pages |= {f"protocols/{_slug(p.name)}.rst": _protocol(p) for p in protocols}
    for old in out.rglob("*.rst"):
        if str(old.relative_to(out)) not in pages:
            old.unlink()
    for name, text in pages.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return sorted(pages)


def _method(method: Method, picture: Mapping[str, Any]) -> str:
    facts = {
        "family": method.family.replace("_", " "),
        "cost per record": method.cost,
        "needs": _needs(method.needs, "the score of the response only"),
        "map": "signed: negative values speak against the response" if method.signed else "unsigned",
        "question-aware": "yes" if method.question_aware else "no: another question about the image gives the same map",
        "reference": method.reference,
    }
    if "iou" in picture:
        shown = f".. figure:: ../../pictures/methods/{method.name}.webp\n   :alt: A chest phantom with boxes\n\n   "
        shown += (
            "One phantom with a consolidation (dashed: its evidence), as ``toy_qwen`` answers for it; IoU of this"
            f" method's boxes {picture['iou']:.2f}. A picture, not a result: one record says nothing about a method."
        )
    else:
        shown = f"No picture: {_escape(picture.get('error', 'it was added after the pictures were drawn'))}."
    command = (
        f"medground-bench generate --dataset DATASET --lvlm LVLM --method {method.name} \\\n       --out submissions"
    )
    return "\n\n".join(
        [
            _title(method.name, "="),
            _docstring(method.function),
            _facts(facts),
            shown,
            f".. code-block:: bash\n\n   {command}",
            _parameters(method.name, method.parameters),
        ]
    )


def _protocol(protocol: Protocol) -> str:
    facts = {
        "needs": _needs(protocol.needs, "the boxes only"),
        "cost per record": protocol.cost,
        "reference": protocol.reference,
        "note": protocol.note,
    }
    measures = [
        (
            f"``{m.name}``",
            _escape(m.title),
            {"high": "high", "low": "low", "": "neither"}[m.better],
            f"{m.bounds[0]:g} to {m.bounds[1]:g}",
            "" if m.chance is None else f"``{m.chance}``" if isinstance(m.chance, str) else f"{m.chance:g}",
        )
        for m in protocol.measures
    ]
    return "\n\n".join(
        [
            _title(protocol.name, "="),
            f"*{_escape(protocol.asks)}*",
            _docstring(protocol.function),
            _facts(facts),
            _title("Numbers", "-"),
            _table(("number", "what it says", "the good end", "range", "chance"), measures),
            _parameters(protocol.name, protocol.parameters),
        ]
    )


def _methods(methods: Sequence[Method]) -> str:
    rows = [
        (
            f":doc:`{m.name} <{_slug(m.name)}>`",
            m.family.replace("_", " "),
            _escape(m.cost),
            _needs(m.needs, "scores"),
            "yes" if m.signed else "no",
            "yes" if m.question_aware else "no",
        )
        for m in sorted(methods, key=lambda m: (m.family, m.name))
    ]
    controls = sum(m.family == "control" for m in methods)
    intro = (
        f"{len(methods)} methods are registered, {controls} of them controls. F and B are forward and backward passes"
        " of the LVLM for one record, D passes of its decoder alone. ``medground-bench methods --long`` prints the same"
        " of what is installed, other packages included."
    )
    table = _table(("method", "family", "cost", "needs", "signed", "question-aware"), rows)
    return "\n\n".join([_title("Methods", "="), intro, table, _toctree(_slug(m.name) for m in methods)])


def _protocols(protocols: Sequence[Protocol]) -> str:
    rows = [
        (f":doc:`{p.name} <{_slug(p.name)}>`", _escape(p.asks), _needs(p.needs, "boxes"), _escape(p.cost))
        for p in protocols
    ]
    intro = "The numbers of each protocol. :doc:`/protocols` says what they are for, and how to run them."
    table = _table(("protocol", "asks", "needs", "cost"), rows)
    return "\n\n".join([_title("Protocols, one by one", "="), intro, table, _toctree(_slug(p.name) for p in protocols)])


def _python() -> str:
    parts = [_title("The Python face", "="), ".. automodule:: medground_bench\n   :no-members:"]
    for name in sorted(set(mgb.__all__) - {"__version__"}, key=str.lower):
        kind = "class" if inspect.isclass(getattr(mgb, name)) else "function"
        members = "\n   :members:" if kind == "class" else ""
        parts += [_title(name, "-"), f".. auto{kind}:: medground_bench.{name}{members}"]
    return "\n\n".join(parts)


def _commands() -> str:
    group = typer.main.get_command(app)
    parts = [_title("The command line", "="), "What ``medground-bench COMMAND --help`` prints."]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        text = inspect.cleandoc(command.help or "")
        parts += [_title(name, "-"), "\n\n".join(_escape(p) for p in text.split("\n\n"))]
        options = []
        for param in command.params:
            if param.name == "help" or getattr(param, "hidden", False):
                continue
            names = ", ".join(f"``{text}``" for text in (*param.opts, *param.secondary_opts))
            if param.param_type_name == "argument":
                names = f"``{param.metavar or param.name.upper()}``"
            default = param.default
            shown = "" if callable(default) or not default else f"``{_plain(default)}``"
            said = " ".join((getattr(param, "help", None) or "").split())
            options.append((names, "required" if param.required else shown, _escape(said)))
        if options:
            parts.append(_table(("option", "default", "what it does"), options))
    return "\n\n".join(parts)


def _columns() -> str:
    said = _attributes(mgb.Record)
    rows = [
        (
            f"``{c.name}``",
            c.kind,
            "yes" if c.fingerprinted else "no",
            "withheld" if c.withheld else "",
            said.get(c.name, "The radiograph, 8-bit grey, as PNG." if c.kind == "image" else ""),
        )
        for c in TABLE
    ]
    return _table(("column", "kind", "part of the fingerprint", "in an ids-only copy", "what it holds"), rows)


def _keys() -> str:
    from medground_bench.submission.prediction import Prediction

    said = _attributes(Prediction)
    header = [(f"``{key}``", "required" if key in REQUIRED_HEADER else "") for key in HEADER_KEYS]
    rows = [(f"``{k}``", "required" if k in ("id", "boxes") else "", said[k]) for k in ROW_KEYS]
    return "\n\n".join(
        [_table(("key of submission.json", ""), header), _table(("key of a line of predictions.jsonl", "", ""), rows)]
    )


def _attributes(what: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of attributes, as reStructuredText in one line each."""
    found: dict[str, str] = {}
    for base in reversed(what.__mro__[:-1]):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes\n----------\n")
        names: list[str] = []
        for line in section.splitlines():
            if line and not line[0].isspace():
                names = [name.strip() for name in line.partition(" : ")[0].split(",")]
                found |= dict.fromkeys(names, "")
            elif line.strip():
                found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def _docstring(function: Any) -> str:
    return str(NumpyDocstring(inspect.getdoc(function) or ""))


def _parameters(name: str, what: type) -> str:
    if not dataclasses.fields(what):
        return "It has no parameters."
    said = _attributes(what)
    summary = "" if said else _docstring(what)
    rows = [
        (f"``{f.name}``", f"``{value!r}``", said.get(f.name, ""))
        for f, value in zip(dataclasses.fields(what), vars(what()).values(), strict=True)
    ]
    given = f"By ``--set {name}.NAME=VALUE``, or as named arguments in Python. {summary}"
    return f"{_title('Parameters', '-')}\n\n{given}\n\n{_table(('name', 'default', 'what it is'), rows)}"


def _needs(needs: Iterable[str], none: str) -> str:
    return ", ".join(need.replace("_", " ") for need in needs) or none


def _facts(facts: Mapping[str, str]) -> str:
    return _table((), [(name, _escape(value)) for name, value in facts.items() if value])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [".. list-table::", *(["   :header-rows: 1"] if head else []), ""]
    for row in (*([head] if head else []), *rows):
        lines += [f"   {'*' if k == 0 else ' '} - {cell}".rstrip() for k, cell in enumerate(row)]
    return "\n".join(lines)


def _toctree(names: Iterable[str]) -> str:
    return "\n".join([".. toctree::", "   :hidden:", "", *(f"   {name}" for name in names)])


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _escape(text: str) -> str:
    return re.sub(r"([\\*`|_])", r"\\\1", text)


def _plain(value: Any) -> str:
    value = getattr(value, "value", value)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _slug(name: str) -> str:
    return name.replace("+", "p")
