"""What the commands that write lose, do twice and leave behind when something goes wrong: the fault table.

Every command of ``tests/cli/test_faults.py`` is run on a copy of small inputs; at one of its steps (a file renamed into
place, or an input opened) a fault strikes; then the inputs are put back and the same command is run again. *Lost* are
files that are missing, or differ from those of an undisturbed run where two such runs agree (the time in a file aside),
and older outputs that were half replaced when the fault struck; *repeated* are lines of journals that are there twice;
*left over* are temporary files after the second run. A run that ends in a traceback, or without a word, ends the table
with exit code 1. Usage, from the checkout::

    python -m benchmarks.fault_table [--tries 2] [--commands score,report] [--faults SIGTERM] [--out TABLE.md]
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medground_bench import cli
from medground_bench.core import files
from medground_bench.lvlm import load_lvlm
from tests.cli.test_faults import CASES, LVLM, make_places, words_of
from tests.faults import hidden

Act = Callable[[], None]


@dataclass(frozen=True)
class Fault:
    """What goes wrong, at which steps: ``renames`` of files into place, or ``opens`` of files of an input."""

    name: str
    steps: str
    act: Callable[[dict[str, Path], Path], Act]
    of: str = ""


def _signal(number: int) -> Callable[[dict[str, Path], Path], Act]:
    return lambda places, place: lambda: os.kill(os.getpid(), number)


def _refused(code: int) -> Callable[[dict[str, Path], Path], Act]:
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return lambda places, place: act


def _removed(key: str) -> Callable[[dict[str, Path], Path], Act]:
    """A folder is deleted: an input, or that of the output."""
    return lambda places, place: lambda: shutil.rmtree(places[key] if key else place)


FAULTS = (
    Fault("SIGKILL", "renames", _signal(signal.SIGKILL)),
    Fault("SIGTERM", "renames", _signal(signal.SIGTERM)),
    Fault("SIGINT", "renames", _signal(signal.SIGINT)),
    Fault("full disk", "renames", _refused(errno.ENOSPC)),
    Fault("file system turns read-only", "renames", _refused(errno.EROFS)),
    Fault("no file beyond 700 bytes", "start", lambda places, place: _limit),
    Fault("folder of the output vanishes", "renames", _removed("")),
    Fault("dataset folder vanishes", "opens", _removed("DATASET"), "DATASET"),
    Fault("source images vanish", "opens", _removed("SOURCE"), "SOURCE"),
    Fault("submission vanishes", "opens", _removed("SUBMISSION"), "SUBMISSION"),
    Fault("verdicts vanish", "opens", _removed("VERDICTS"), "VERDICTS"),
)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@dataclass
class Row:
    """A line of the table."""

    tries: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0
    left: int = 0


@dataclass(frozen=True)
class End:
    """How a run ended: exit code or minus the signal, what it said, and its steps of each kind."""

    code: int
    said: str
    steps: dict[str, int]

    def word(self) -> str:
        """How that looks to the user.

        Raises
        ------
        RuntimeError
            If it is an end that no user should see.
        """
        known = {0: "done", 130: "interrupted", -signal.SIGKILL: "killed", -signal.SIGTERM: "terminated"}
        if self.code == 1 and self.said.count("error: ") == 1 and "Traceback" not in self.said:
            return "refused"
        if self.code not in known or "Traceback" in self.said:
            raise RuntimeError(f"ended with {self.code} and said:\n{self.said}")
        return known[self.code]


def run(words: list[str], inputs: dict[str, Path], place: Path, fault: Fault | None = None, step: int = 0) -> End:
    """Run a command in a child process, with a fault at a step (from 1)."""
    with tempfile.TemporaryFile("w+") as told:
        read, write = os.pipe()  # which no limit on file sizes is about
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(write, 1)
                os.dup2(write, 2)
                os.close(write)
                files._swept.clear()  # as in a process that has just started
                counts = _watch(inputs, place, fault, step)
                sys.argv = ["medground-bench", *words]
                try:
                    cli.main()
                    code = 0
                except SystemExit as ended:
                    code = int(ended.code or 0)
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
                told.write(json.dumps(counts))
                told.flush()
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        told.seek(0)
        return End(os.waitstatus_to_exitcode(status), said, json.loads(told.read() or "{}"))


def _watch(inputs: dict[str, Path], place: Path, fault: Fault | None, step: int) -> dict[str, int]:
    """Count the steps of this process, and let the fault strike."""
    counts: dict[str, int] = Counter()
    act = fault.act(inputs, place) if fault else lambda: None
    kind = f"opens {fault.of}".strip() if fault and fault.steps == "opens" else fault.steps if fault else ""

    def reach(name: str) -> None:
        counts[name] += 1
        if name == kind and counts[name] == step:
            act()

    def renaming(rename: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if any(str(a).startswith(str(place)) for a in arguments):
                reach("renames")
            return rename(*arguments, **options)

        return wrapped

    def opening(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            name = os.fsdecode(arguments[0])
            for key, folder in inputs.items():
                if name.startswith(f"{folder}/"):
                    reach(f"opens {key}")

    os.rename, os.replace = renaming(os.rename), renaming(os.replace)
    files._exchange = renaming(files._exchange)
    sys.addaudithook(opening)
    reach("start")
    return counts


_TIMES = re.compile(rb'"(seconds|created|started)": ?("[^"]*"|[0-9.e+-]+)|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:[\d.]+)?')

_ERRORS = re.compile(rb'(?m)^.*"verdict": ?"error".*\n')


def outputs(place: Path) -> dict[str, bytes]:
    """Files below a folder without their times; locks, hidden files, caches and replaced errors aside."""
    return {
        str(p.relative_to(place)): _ERRORS.sub(b"", _TIMES.sub(b"", p.read_bytes()))
        for p in sorted(place.rglob("*"))
        if p.is_file()
        and p.suffix not in (".lock", ".part")
        and not any(q.startswith(".") for q in p.relative_to(place).parts)
    }


def lines(found: dict[str, bytes]) -> int:
    """Lines of journals and predictions."""
    return sum(len(data.splitlines()) for name, data in found.items() if name.endswith(".jsonl"))


@contextmanager
def copied(inputs: dict[str, Path], root: Path) -> Iterator[dict[str, Path]]:
    """The inputs in a place where they may be destroyed, under the same path every time."""
    work = root / "work"
    base = inputs["SOURCE"].parent
    shutil.copytree(base, work)
    try:
        yield {k: p if k == "RECORD" else work / p.relative_to(base) for k, p in inputs.items()}
    finally:
        shutil.rmtree(work, ignore_errors=True)


def table_of(name: str, fault: Fault, inputs: dict[str, Path], root: Path, tries: int, known: dict[str, Any]) -> Row:
    """Let a fault strike a command at several of its steps."""
    row, place = Row(), root / "place"

    def once(step: int, struck: Fault | None) -> tuple[End, dict[str, bytes], list[str]]:
        """Run it, with the fault; then again, undisturbed."""
        with copied(inputs, root) as here:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            os.environ["MEDGROUND_CACHE"] = str(root / "work" / "cache")
            words = words_of(name, here, place / "out")
            end = run(words, here, place, struck, step)
            if struck is not None:
                half = {
                    k: v for k, v in outputs(place).items() if CASES[name].folder is False and v != known["out"].get(k)
                }
                row.lost += len({k for k in half if k in known["stable"]})
                for key in ("SOURCE", "DATASET", "SUBMISSION", "VERDICTS"):  # put back what has vanished
                    if not here[key].exists():
                        shutil.copytree(inputs[key], here[key])
                place.mkdir(exist_ok=True)
                again = run(words, here, place)
                if again.word() != "done":
                    raise RuntimeError(f"the second run ended with {again.code} and said:\n{again.said}")
            return end, outputs(place), hidden(place, ".parts")

    if not known:
        end, first, _ = once(0, None)
        if end.word() != "done":
            raise RuntimeError(f"{name} does not work: {end.said}")
        _, second, left = once(0, None)
        known |= {"steps": end.steps, "out": first, "left": left}
        known["stable"] = {k for k, v in first.items() if second.get(k) == v}
    count = known["steps"].get(f"opens {fault.of}" if fault.of else fault.steps, 0)
    for step in sorted({1 + round((k + 0.5) * (count - 1) / tries) for k in range(tries)}) if count else ():
        end, found, left = once(step, fault)
        row.tries += 1
        row.ended[end.word()] += 1
        row.lost += sum(k not in found or (k in known["stable"] and found[k] != v) for k, v in known["out"].items())
        row.repeated += max(0, lines(found) - lines(known["out"]))
        row.left += len(set(left) - set(known["left"]))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=2, help="steps at which a fault strikes a command, at most")
    parser.add_argument("--commands", default=",".join(CASES).replace(", ", " "), help="names of the cases, by comma")
    parser.add_argument("--faults", default="", help="only those whose names begin so, by comma")
    parser.add_argument("--out", type=Path, help="also write the table")
    args = parser.parse_args()
    names = {name.replace(", ", " "): name for name in CASES}
    text = ["| fault | command | times tried | ended | lost | repeated | left over |", "| --- " * 7 + "|"]
    wrong = 0
    print("\n".join(text), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve()
        os.environ["MEDGROUND_CACHE"] = str(root / "cache")
        inputs = make_places(root / "inputs")
        load_lvlm(LVLM)  # whatever is loaded here need not be loaded by every child
        known: dict[str, dict[str, Any]] = {name: {} for name in CASES}
        for fault in (f for name in args.faults.split(",") for f in FAULTS if f.name.startswith(name)):
            for shown in args.commands.split(","):
                try:
                    row = table_of(names[shown], fault, inputs, root, args.tries, known[names[shown]])
                except RuntimeError as error:
                    wrong += 1
                    print(f"WRONG: {fault.name}, {shown}: {error}", file=sys.stderr, flush=True)
                    continue
                if row.tries:
                    ended = ", ".join(f"{n} {word}" for word, n in row.ended.items())
                    text.append(
                        f"| {fault.name} | {shown} | {row.tries} | {ended} | {row.lost} | {row.repeated} | {row.left} |"
                    )
                    print(text[-1], flush=True)
    if args.out:
        args.out.write_text("\n".join(text) + "\n", encoding="utf-8")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
