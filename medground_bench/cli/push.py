"""``medground-bench push``: upload a dataset folder to a private, gated repository of the Hub."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    folder: Path = typer.Argument(..., help="Dataset folder that 'medground-bench build' wrote."),
    repo: str = typer.Option(..., "--repo", help="Dataset repository, ORG/NAME."),
    ids_only: bool = typer.Option(
        False, "--ids-only", help="Leave out images and, of credentialed sources, findings, boxes and answers."
    ),
    public: bool = typer.Option(
        False, "--public", help="Publish openly; refused for images and annotations of credentialed sources."
    ),
) -> None:
    """Upload a dataset folder to the Hub: private and gated, unless it may be public."""
    from medground_bench.core.console import stderr, stdout
    from medground_bench.dataset.masking import KEY_ENDING
    from medground_bench.dataset.publish import JOINING_ENDING, credentialed_sources, publish

    def say(line: str) -> None:
        stderr.print(line, markup=False, highlight=False, soft_wrap=True)

    done = publish(folder, repo, ids_only=ids_only, public=public, progress=say)
    kind = "ids only, " if ids_only else ""
    access = "private, gated" if done.private else "public"
    stdout.print(f"{len(done.files)} files ({kind}{access}): {done.url}", markup=False, highlight=False, soft_wrap=True)
    closed = credentialed_sources(folder)
    if closed and ids_only:
        kept = " and ".join(f"{folder.absolute().name}{ending}" for ending in (KEY_ENDING, JOINING_ENDING))
        say(f"Beside the folder, for you alone: {kept}.")
    if closed and not ids_only:
        say(f"It holds {', '.join(closed)}: give access only to persons who have signed the sources' agreements.")
