"""The ``medground-bench`` console command: one thin module per subcommand.

Each module holds a function ``command`` that becomes the subcommand of its file name; heavy imports stay inside
the functions, so that ``--help`` is instant.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from importlib import import_module, metadata
from typing import NoReturn

import typer

from medground_bench.cli import _lvlm
from medground_bench.core.errors import FileError, MedGroundError, printable
from medground_bench.core.versions import VERSION

__all__ = ["app", "main"]

# Order of the help page: the order in which a user meets them.
_COMMANDS = (
    "demo",
    "sources",
    "verify",
    "agreement",
    "phantom",
    "plant",
    "build",
    "show",
    "push",
    "methods",
    "lvlms",
    "generate",
    "validate",
    "tokens",
    "score",
    "protocols",
    "evaluate",
    "meta",
    "compare",
    "report",
    "leaderboard",
    "submit",
    "filter",
    "funnel",
    "xbench",
    "run",
    "doctor",
)

app = typer.Typer(
    name="medground-bench",
    help="Causally verified evidence for chest X-ray question answering.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
    threads: int | None = typer.Option(
        None,
        min=1,
        envvar="MEDGROUND_BENCH_THREADS",
        help="Threads of an LVLM on the CPU (default: one for models of up to two million parameters, else torch's).",
    ),
) -> None:
    _lvlm.threads = threads
    if version:
        typer.echo(VERSION)
        raise typer.Exit


for _name in _COMMANDS:
    app.command(_name)(import_module(f"medground_bench.cli.{_name}").command)
for _entry in sorted(metadata.entry_points(group="medground_bench.commands")):  # of MedFocus and other packages
    app.command(_entry.name)(_entry.load())


def main() -> None:
    """Run the command; what a user can mend is one message on standard error and exit code 1.

    That is every :class:`MedGroundError`, and every :class:`OSError`: no space, no permission, a file where a folder is
    meant. Other exceptions are bugs of ours and keep their traceback.
    """
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # at exit it would be too late to tell that the disk behind it is full
    except MedGroundError as error:
        _failed(error)
    except BrokenPipeError:  # who reads our output has seen enough
        _drop_output()
        sys.exit(1)
    except OSError as error:
        _drop_output()
        # Whatever writes a file names it in its errors (core.files), so that this one is about our words.
        _failed(FileError.of(error, "standard output" if error.errno in (errno.ENOSPC, errno.EFBIG) else None))
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as ended:
        if ended.code == 130:  # Typer has caught the interrupt itself
            _interrupted()
        raise


def _failed(error: MedGroundError) -> NoReturn:
    typer.secho(printable(f"error: {error}"), fg=typer.colors.RED, err=True)
    sys.exit(1)


def _interrupted() -> NoReturn:
    typer.secho("interrupted; run the same command again to resume", err=True)
    sys.exit(130)


def _drop_output() -> None:
    """If standard output cannot be written, send what its buffer holds nowhere, or that would fail again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
