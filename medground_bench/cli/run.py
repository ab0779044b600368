"""``medground-bench run``: the commands of a file, checked before the first of them starts, and recorded."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import typer

from medground_bench.core.errors import MedGroundError, nearest

__all__ = ["command"]

_EXAMPLE = """a mapping with a list 'steps', each a command and its options:
    steps:
      - score: {submissions: [submissions], dataset: demo/medground-bench, out: scores.json}
      - compare: {scores: scores.json}"""


def command(
    file: Path = typer.Argument(..., help="YAML file with the steps."),
    check: bool = typer.Option(False, "--check", help="Check it and print the command lines; run nothing."),
    record: Path | None = typer.Option(None, help="Where to record what ran (default: FILE.record.json)."),
) -> None:
    """Run the steps of a YAML file: the commands of this program with their options.

    Options are named as on the command line, without dashes; a list repeats one, a mapping is NAME=VALUE pairs, true
    and false are switches. Paths are relative to the current folder. Steps that resume do so when it is run again.

    Example: medground-bench run study.yaml --check
    """
    import typer.main

    from medground_bench.cli import app
    from medground_bench.core.console import stderr

    group: Any = typer.main.get_command(app)
    steps = list(_steps(file, group))
    lines = [" ".join(["medground-bench", *map(shlex.quote, words)]) for words, _ in steps]
    if check:
        typer.echo("\n".join(lines))
        return
    target = record if record is not None else file.with_name(file.name + ".record.json")
    done: list[dict[str, Any]] = []
    for k, (words, context) in enumerate(steps, 1):
        stderr.print(f"step {k} of {len(steps)}: {lines[k - 1]}", markup=False, highlight=False, soft_wrap=True)
        entry = {"command": words, "options": _plain(context.params), "started": _now()}
        done.append({**entry, "outcome": "running"})
        _record(target, file, done)
        started, outcome = time.monotonic(), "failed"
        try:
            with context:
                context.command.invoke(context)
            outcome = "done"
        except typer.Exit as ended:
            outcome = "done" if ended.exit_code == 0 else f"exit code {ended.exit_code}"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            done[-1] = {**entry, "seconds": round(time.monotonic() - started, 1), "outcome": outcome}
            _record(target, file, done)
        if outcome != "done":
            raise MedGroundError(f"step {k} ended with {outcome}", where=file, remedy="correct it, and run it again")
    stderr.print(f"recorded: {target}", markup=False, highlight=False, soft_wrap=True)


def _steps(file: Path, group: Any) -> Iterator[tuple[list[str], Any]]:
    """The command line of every step, and its parsed options; whatever is wrong is told before anything runs."""
    content = _load(file)
    listed = content.get("steps") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed or set(content) != {"steps"}:
        raise MedGroundError("this is no run file", where=file, expected=_EXAMPLE)
    for k, step in enumerate(listed, 1):
        where = f"{file}: step {k}"
        if not isinstance(step, dict) or len(step) != 1:
            raise MedGroundError("a step is one command", where=where, expected=_EXAMPLE)
        ((name, options),) = step.items()
        known = sorted(set(group.commands) - {"run"})
        if name not in known:
            raise MedGroundError(
                f"there is no command {name!r}",
                where=where,
                expected=f"one of {', '.join(known)}",
                remedy=nearest(str(name), known),
            )
        if not isinstance(options, Mapping | None):
            raise MedGroundError("options are a mapping", where=where, expected=_EXAMPLE)
        words = list(_words(group.commands[name], options or {}, f"{where} ({name})"))
        try:
            yield [name, *words], group.commands[name].make_context(name, list(words))
        except Exception as error:
            message = getattr(error, "format_message", None)  # a usage error of the parser
            if message is None:
                raise
            raise MedGroundError(str(message()), where=f"{where} ({name})") from error


def _words(command: Any, options: Mapping[str, Any], where: str) -> Iterator[str]:
    """The command line of a step."""
    by_name: dict[str, Any] = {}
    for parameter in command.params:
        names = parameter.opts if parameter.param_type_name == "option" else [parameter.name]
        by_name |= {name.lstrip("-").replace("-", "_"): parameter for name in names}
    by_name.pop("help", None)
    arguments: list[str] = []
    for key, value in options.items():
        name = str(key).replace("-", "_")
        if name not in by_name:
            raise MedGroundError(
                f"no option {key!r}",
                where=where,
                expected=f"some of {', '.join(sorted(by_name))}",
                remedy=nearest(name, by_name),
            )
        parameter = by_name[name]
        if parameter.param_type_name != "option":
            arguments += [str(one) for one in (value if isinstance(value, list) else [value])]
        elif isinstance(value, bool):
            if not (switches := parameter.opts if value else parameter.secondary_opts):
                continue  # a switch that can only be switched on, and is off
            yield switches[0]
        else:
            pairs = [f"{n}={_text(v)}" for n, v in value.items()] if isinstance(value, Mapping) else value
            for one in [] if pairs is None else pairs if isinstance(pairs, list) else [pairs]:
                yield from (parameter.opts[0], _text(one))
    yield from (["--", *arguments] if arguments else [])


def _text(value: Any) -> str:
    """A value as it stands on the command line: JSON but for texts."""
    return value if isinstance(value, str) else json.dumps(value)


def _load(file: Path) -> Any:
    """YAML without objects, and without a key that is there twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(key) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise MedGroundError(f"the key {twice[0]!r} is there twice", where=f"{file}:{node.start_mark.line + 1}")
        return dict(zip(keys, (loader.construct_object(v, deep=True) for _, v in node.value), strict=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(file.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise MedGroundError(f"this is not YAML: {' '.join(str(error).split())}", where=file) from error


def _record(target: Path, file: Path, done: list[dict[str, Any]]) -> None:
    from medground_bench.core.files import atomic_write, sha256_of
    from medground_bench.core.versions import software_versions

    content = {"file": file.name, "sha256": sha256_of(file), "versions": software_versions(), "steps": done}
    with atomic_write(target) as out:
        json.dump(content, out, indent=1)
        out.write("\n")


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(options), default=str))


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
