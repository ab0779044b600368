"""Every command and snippet of README and docs does what its page says, in the order of the pages, in one folder.

What is not run stands below (:data:`LEFT_OUT`), or on the page, before the block: ``<!-- not run: reason -->``. What
is run on test data in place of licensed or downloaded data is in :data:`INSTEAD`. An entry that nothing needs fails.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medground_bench import cli
from tests.test_messages import commands

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/index.md", "docs/concepts.md", "docs/guides/without.md", "docs/guides/method.md"]
PAGES += [
    "docs/guides/lab.md",
    "docs/guides/lvlm_or_source.md",
    "docs/running.md",
    "docs/protocols.md",
    "docs/lvlms.md",
]
PAGES += ["docs/formats.md", "docs/reliability.md", "docs/results.md"]

LEFT_OUT = {
    "pip": "installs; .ci/run does, in a fresh environment",
    "pytest": "the tests are running",
}
"""Programs that are not started."""

INSTEAD = {
    "medground-bench demo": "medground-bench demo --records 4 --methods occlusion,lrp,sobel",  # minutes
    "direct/medfocus_guided": "direct/sobel",  # of the small demo
    '"medfocus"': '"medfocus_multi_atlas"',  # ten times faster; tests/test_face.py runs this block as it stands
    "brightness,occlusion": "intensity,occlusion",  # it would have to be installed
    "--lvlm MODEL": "--lvlm toy_qwen",
    "--lvlm qwen2_5_vl_3b": "--lvlm toy_qwen",  # published weights
    "--dataset medground-bench": "--dataset demo/medground-bench",  # of licensed sources
    "pool=POOL": "pool=phantom",  # the one that ships
    "--source nih_cxr14=DIR --editor radedit": "--source phantom=demo/phantom --editor phantom",  # published weights
    "--records verdicts --source nih_cxr14=DIR": "--records verdicts --source phantom=demo/phantom",
    "nih_cxr14=DIR": "nih_cxr14=sources/nih_cxr14",  # phantoms in its layout
    "--canvas DIR": "--canvas sources/canvas",
    "accelerate launch --multi_gpu --num_processes 4 -m medground_bench": "medground-bench",  # needs GPUs
    "torchrun --nproc-per-node 2 -m medground_bench": "medground-bench",  # tests/attribution/test_generate_processes.py
}
"""Text of a page -> what is run in its place, applied in this order."""

HELP = {
    "--records download": "downloads the released file",
    "verify --source imagenome": "released records name positions that small copies lack; tests/dataset has long ones",
    "atlas --imagenome": "needs real anatomy; tests/medfocus/test_build.py makes a pool",
    "xbench": "needs a published model of two towers; tests/scoring/test_xbench.py runs it",
}
"""Commands that are asked for ``--help`` with the same options, since they need a network or licensed data."""

SAYS = {
    "build": r"\d+ rows, \d+ images",
    "compare": r"IoU",
    "demo": r"medfocus|occlusion",
    "doctor": r"free space",
    "evaluate": r"written|evaluated",
    "filter": r"kept|question",
    "funnel": r"candidates",
    "generate": r"attributions computed|s a record",
    "leaderboard": r"written: ",
    "lvlms": r"llava|qwen",
    "meta": r"tau",
    "methods": r"occlusion",
    "phantom": r"images",
    "plant": r"images|findings",
    "protocols": r"necessity",
    "report": r"written: ",
    "score": r"IoU",
    "sources": r"licence",
    "submit": r"would send",
    "validate": r"valid",
}
"""What a command's output has to have."""


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, in which language, and why it is not run, if so."""

    place: str
    language: str
    code: str
    not_run: str


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for found in re.finditer(r"(?:<!-- not run: (.+?) -->\n)?^```(bash|python)\n(.*?)^```", text, re.M | re.S):
            line = text[: found.start(3)].count("\n") + 1
            yield Block(f"{page}:{line}", found[2], found[3], found[1] or "")


def command_lines(block: Block) -> list[str]:
    """Its commands, one a line: continued lines are joined, comments are cut, ``a && b`` are two."""
    joined = re.sub(r"\\\n\s*", "", block.code)
    lines = [shlex.join(shlex.split(line, comments=True)) for line in joined.splitlines()]
    return [part.strip() for line in lines if line for part in line.split("'&&'")]


def replaced(text: str, used: set[str]) -> str:
    for old, new in INSTEAD.items():
        if old in text:
            used.add(old)
            text = text.replace(old, new)
    return text


def test_the_pages_are_all_of_them() -> None:
    there = {str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if "generated" not in p.parts}
    assert there | {"README.md"} == set(PAGES)


def test_every_command_has_its_output_described() -> None:
    known = commands()
    for block in blocks():
        for line in command_lines(block) if block.language == "bash" and not block.not_run else []:
            program, *words = shlex.split(replaced(line, set()))
            assert program in {"medground-bench", *LEFT_OUT}, f"{block.place}: {line}"
            if program == "medground-bench":
                assert words[0] in known, f"{block.place}: {line}"
                assert words[0] in SAYS or any(text in line for text in HELP), f"{block.place}: {line}"


@pytest.mark.heavy
def test_every_command_and_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medground_bench.sources.phantom import write_source

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDGROUND_CACHE", str(tmp_path / "cache"))
    write_source("nih_cxr14", tmp_path / "sources" / "nih_cxr14", 4, size=512, findings=["consolidation"])
    write_source("phantom", tmp_path / "normal", 4, size=512, findings=[])
    (tmp_path / "normal" / "images").rename(tmp_path / "sources" / "canvas")
    used: set[str] = set()
    run_command(replaced("medground-bench demo", used), tmp_path)
    namespace: dict[str, Any] = {}
    table, failed = [], []
    for block in blocks():
        if block.not_run:
            table.append((block.place, "not run", block.not_run))
        elif block.language == "python":
            if block.place.startswith("README.md"):
                namespace = {"__name__": "snippet"}
            sys.modules.setdefault("snippet", type(sys)("snippet"))  # where dataclasses look for their module
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(replaced(block.code, used), block.place, "exec"), namespace)
            except Exception as error:
                failed.append(f"{block.place}: {error!r}")
            table.append((block.place, "python", f"{len(block.code.splitlines())} lines"))
        else:
            for line in command_lines(block):
                if (program := line.split()[0]) in LEFT_OUT:
                    used.add(program)
                    table.append((block.place, "left out", f"{line}: {LEFT_OUT[program]}"))
                elif helps := [text for text in HELP if text in line]:
                    used |= set(helps)
                    ask_for_help(line)
                    table.append((block.place, "--help", f"{line}: {HELP[helps[0]]}"))
                else:
                    line = replaced(line, used)
                    try:
                        run_command(line, tmp_path)
                    except AssertionError as error:
                        failed.append(f"{block.place}: {error}")
                    table.append((block.place, "run", line))
    for row in table:
        print("{:32} {:9} {}".format(*row))
    assert not failed, "\n\n".join(failed)
    assert used == {*INSTEAD, *HELP, *LEFT_OUT}, "an entry of a table above is not needed any more"
    assert sum(kind == "run" for _, kind, _ in table) > 40
    assert sum(kind == "python" for _, kind, _ in table) > 6


def run_command(line: str, folder: Path) -> str:
    """Run a command in this process; it succeeds, says what it should, and what it was to write is there."""
    words = shlex.split(line)[1:]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["medground-bench", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code, f"{line}\n{out.getvalue()}\n{err.getvalue()}"
    assert re.search(SAYS[words[0]], out.getvalue() + err.getvalue()), f"{line}\n{out.getvalue()}\n{err.getvalue()}"
    if "--out" in words and "--plan" not in words:
        path = Path(words[words.index("--out") + 1])
        per_mode = [folder / path.with_suffix(f".{mode}{path.suffix}") for mode in ("direct", "reason")]
        assert any(p.exists() for p in (folder / path, *per_mode)), f"{line}: {path} is not there"
    return out.getvalue()


def ask_for_help(line: str) -> None:
    """The command's help names every option that the page uses."""
    words = shlex.split(line)[1:]
    assert {word for word in words if word.startswith("--")} <= commands()[words[0]], line
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medground-bench", words[0], "--help"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert not ended.value.code
    assert "Usage" in out.getvalue()
