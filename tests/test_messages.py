"""What a message, docstring or page tells a user to run or to look at is there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer.main

from medground_bench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "DEVELOPERS.md", "CONTRIBUTING.md", "SECURITY.md", "dataset_card.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
OTHERS = {
    *("--multi-gpu", "--nproc-per-node", "--num-processes", "--main-process-port"),  # of accelerate and torchrun
    *("--cpu", "--no-deps", "--user", "--help", "--only-binary"),  # of pip and everybody
    *("--no-enable-prefix-caching", "--reasoning-parser", "--chat-template"),  # of vLLM's server
    *("--nodes", "--ntasks-per-node", "--gpus-per-node", "--cpus-per-task", "--time", "--requeue"),  # of Slurm
    *("--build-arg", "--rm", "--gpus"),  # of Docker
}
"""Options of other programs, where a text is about them."""
PROSE = {"scores", "protocol", "localization", "token"}  # the kinds that files of ours state
PROSE |= {"that", "itself", "built", "is"}
"""Words after the package's name that are no commands."""


@cache
def commands() -> dict[str, set[str]]:
    """Command -> its options."""
    group = typer.main.get_command(app)
    found = {
        name: {text for p in command.params for text in (*p.opts, *p.secondary_opts)}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    return {**found, "": {text for p in group.params for text in p.opts}}


def texts() -> Iterator[tuple[str, str]]:
    """(place, text) of every string in the packages, and of the pages; the parts of an f-string are joined."""
    for package in ("medground_bench", "baselines", "medfocus"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            inside = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
            for node in ast.walk(tree):
                where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
                if isinstance(node, ast.JoinedStr):
                    parts = (str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
                    yield where, "".join(parts)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                    yield where, node.value
    for path in PAGES:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{path.name}:{number}", line


@pytest.fixture(scope="module")
def everything() -> list[tuple[str, str]]:
    found = list(texts())
    assert len(found) > 5000
    return found


def test_commands_exist(everything: list[tuple[str, str]]) -> None:
    pattern = re.compile(r"(?:medground-bench|-m medground_bench)(?: --threads \S+)? ([a-z][a-z_-]+)\b(?![:.]\S)")
    wrong, seen = [], set()
    for where, text in everything:
        for name in pattern.findall(text):
            seen.add(name)
            if name not in commands() and name not in PROSE:
                wrong.append(f"{where}: medground-bench {name}")
    assert not wrong, "\n".join(wrong)
    assert {"score", "generate", "build"} <= seen


def own_parsers() -> set[str]:
    """Options of the scripts and of the Space, which have parsers of their own."""
    found = set()
    for folder in ("medground_bench", "benchmarks", "builder_scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', path.read_text(encoding="utf-8")))
    return found


def test_options_exist(everything: list[tuple[str, str]]) -> None:
    known = {option for options in commands().values() for option in options} | OTHERS | own_parsers()
    pattern = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*\b(?!-?\{)")
    wrong = {
        f"{where}: {option}"
        for where, text in everything
        for option in pattern.findall(text)
        if option not in known and "var(" not in text and "<style" not in text and "pip " not in text
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_modules_and_names_exist(everything: list[tuple[str, str]]) -> None:
    wrong = []
    for where, text in everything:
        for dotted in set(re.findall(r"\b(?:medground_bench|baselines|medfocus)(?:\.[A-Za-z_][A-Za-z0-9_]*)+", text)):
            if not _there(dotted):
                wrong.append(f"{where}: {dotted}")
    assert not wrong, "\n".join(wrong)


def test_tests_exist() -> None:
    """A page that says which test shows something names one that is there; ``::name`` alone: in the file before it."""
    wrong, seen = [], 0
    for page in PAGES:
        file = ""
        for named in re.findall(r"`(tests/[\w/.]+(?:::\w+)*|(?:::\w+)+)`", page.read_text(encoding="utf-8")):
            path, *names = named.split("::")
            file, seen = path or file, seen + 1
            there = (ROOT / file).exists()
            code = (ROOT / file).read_text(encoding="utf-8") if there and names else ""
            if not there or any(not re.search(rf"^\s*(?:def|class) {name}\b", code, re.MULTILINE) for name in names):
                wrong.append(f"{page.name}: {named}")
    assert not wrong, "\n".join(wrong)
    assert seen > 30


GROUPS = {
    f"medground_bench.{name}"
    for name in ("methods", "method_providers", "editors", "localizers", "commands", "protocols")
}
"""Entry-point groups."""


@cache
def _there(dotted: str) -> bool:
    if dotted in GROUPS or dotted.endswith((".py", ".md", ".git")):
        return True
    parts = dotted.split(".")
    for k in range(len(parts), 0, -1):
        name = ".".join(parts[:k])
        try:
            if find_spec(name) is None:
                continue
            found = importlib.import_module(name)
        except (ImportError, ModuleNotFoundError):
            continue
        for part in parts[k:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return part in getattr(found, "__dataclass_fields__", {})
            found = getattr(found, part, None)
        return True
    return False
