"""The leaderboard as a Gradio Space: the page, and a form that takes in submissions.

``python -m medground_bench.pages.leaderboard.app --results DIR --dataset DIR`` serves it; the same with
``--ingest FOLDER`` scores the submission folders below FOLDER (a clone of the results repository, after pull requests
were merged) and ends. The dataset stays on the server: the page shows rounded scores of many records and what
submissions say about themselves, never images or texts of records. Every submission is scored in a process of its own,
with a deadline and a memory limit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MedGroundError, MissingDependencyError, printable
from medground_bench.dataset.folder import read_build_record
from medground_bench.pages.leaderboard.archive import Limits, UploadError
from medground_bench.pages.leaderboard.page import collect_results, leaderboard_page
from medground_bench.pages.leaderboard.public import QUOTA, public_scores
from medground_bench.pages.leaderboard.worker import receive_apart
from medground_bench.scoring.rows import interval_text
from medground_bench.submission import HEADER_FILE

if TYPE_CHECKING:
    import gradio

    from medground_bench.pages.leaderboard.uploads import Receipt

__all__ = ["build_app", "ingest", "main"]

_STYLE = """
.mgb-board { width: 100%; height: calc(100vh - 130px); min-height: 420px; border: 0; border-radius: 10px; }
.mgb-message { border-radius: 10px; padding: 14px 18px; border: 1px solid;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.mgb-good { border-color: #1a8f5a; background: color-mix(in srgb, #1a8f5a 12%, transparent); }
.mgb-bad { border-color: #b3261e; background: color-mix(in srgb, #b3261e 12%, transparent); }
"""

_HELP = """
A ZIP of one submission folder: `submission.json` and `predictions.jsonl`, with `heatmaps/*.npy` if you like. Check it
first with `medground-bench validate SUBMISSION --dataset FOLDER --config CONFIG`. It is validated and scored here,
against the references this server holds; its scores and what `submission.json` says become public, the predictions
are not kept. Results are not replaced: a new version needs a new method name. A name belongs to who sent it first: to
the account you are logged in with, else to your key, any words that only you know.
"""


def build_app(
    results: str | Path,
    dataset: str | Path,
    *,
    config: str | None = None,
    limits: Limits | None = None,
    resamples: int = 10_000,
    quota: int = QUOTA,
) -> gradio.Blocks:
    """The Gradio app.

    Parameters
    ----------
    results : path
        Folder of score files; uploads add to it.
    dataset : path
        Dataset folder with the references.
    config : str, optional
        Accept only submissions for this config.
    limits : Limits, optional
        What an upload may be.
    resamples : int
        Of the bootstrap.
    quota : int
        Submissions of one account a day.

    Raises
    ------
    MissingDependencyError
        If Gradio is not installed.
    MedGroundError
        If the dataset folder cannot be opened.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise MissingDependencyError(
            "the leaderboard's server needs Gradio", remedy='pip install "medground-bench[app]"'
        ) from error
    configs = ", ".join([config] if config else read_build_record(dataset)["configs"])

    def take_in(upload: str | None, key: str, request: gr.Request) -> tuple[str, str]:
        if not upload:
            return _message("choose a ZIP file first", good=False), board(results)
        try:
            receipt = receive_apart(
                "archive",
                upload,
                results,
                dataset,
                config=config,
                limits=limits,
                resamples=resamples,
                account=_account(key, request),
                quota=quota,
            )
        except UploadError as error:
            return _message(f"refused: {error}", good=False), board(results)
        except Exception as error:  # whoever sent it learns nothing of the server's insides
            print(f"upload failed: {type(error).__name__}: {error}", file=sys.stderr)
            return _message("the server could not score this; its owner has been told", good=False), board(results)
        return _message(_thanks(receipt), good=True), board(results)

    # Uploaded archives are deleted when they are ten minutes old.
    with gr.Blocks(
        title="MedGround-Bench leaderboard", analytics_enabled=False, fill_width=True, delete_cache=(600, 600)
    ) as app:
        gr.HTML(f"<style>{_STYLE}</style>")
        with gr.Tab("Leaderboard"):
            page = gr.HTML(board(results), elem_id="board")
        with gr.Tab("Submit"):
            gr.Markdown(_HELP + f"\nConfigs on this server: {configs}.")
            upload = gr.File(label="ZIP of a submission folder", file_types=[".zip"], type="filepath")
            key = gr.Textbox(label="Your key", max_lines=1, max_length=200, type="password")
            button = gr.Button("Validate, score and add", variant="primary")
            answer = gr.HTML(elem_id="answer")
        button.click(take_in, inputs=[upload, key], outputs=[answer, page], api_name="submit", concurrency_limit=8)
        app.load(lambda: board(results), outputs=page, api_name="board")
    return app


def board(results: str | Path) -> str:
    """The leaderboard page in an inline frame (iframe) of its own, where its scripts can reach nothing else."""
    from markupsafe import escape

    try:
        files, rejected = collect_results(results) if Path(results).is_dir() else ([], [])
        html = leaderboard_page([public_scores(file) for file in files], rejected)
    except OSError as error:
        html = f"<p>The results cannot be read: {escape(error.strerror or 'error')}</p>"
    allowed = "allow-scripts allow-downloads"  # the table as a file
    return f'<iframe class="mgb-board" title="Leaderboard" sandbox="{allowed}" srcdoc="{escape(html)}"></iframe>'


def _account(key: str, request: gradio.Request) -> str:
    """Who is asking: the account they are logged in with, else their key, else where they call from."""
    if getattr(request, "username", None):
        return f"account {request.username}"
    if key and key.strip():
        return f"key {key.strip()}"
    client = getattr(request, "client", None)
    return f"address {getattr(client, 'host', '') or 'unknown'}"


def _message(text: str, *, good: bool) -> str:
    from markupsafe import escape

    return f'<div class="mgb-message {"mgb-good" if good else "mgb-bad"}" role="status">{escape(text)}</div>'


def _thanks(receipt: Receipt) -> str:
    lines = [
        f"{receipt.method} for {receipt.lvlm}, {receipt.mode}: mean IoU {interval_text(receipt.iou)} "
        f"on {receipt.records} records. It is on the leaderboard.",
        *(f"warning: {warning}" for warning in receipt.warnings[:5]),
    ]
    if receipt.ignored:
        more = f" and {len(receipt.ignored) - 5} more" if len(receipt.ignored) > 5 else ""
        lines.append(f"not looked at: {', '.join(receipt.ignored[:5])}{more}")
    return "\n".join(lines)


def ingest(
    folder: str | Path, results: str | Path, dataset: str | Path, **options: Any
) -> tuple[list[Receipt], list[str]]:
    """Score every submission folder below ``folder`` that is not on the leaderboard yet, whatever the others are.

    Returns
    -------
    receipts : list of Receipt
    refused : list of str
        One line for each that was refused, with the reason.
    """
    folder, receipts, refused = Path(folder), [], []
    if not folder.is_dir():
        raise MedGroundError("there is no such folder", where=folder, expected="a folder of submissions")
    for path in sorted(p.parent for p in folder.rglob(HEADER_FILE)):
        shown = path.relative_to(folder)
        try:
            if any((folder / part).is_symlink() for part in (shown, *shown.parents)):
                raise UploadError("links are not accepted")
            receipts.append(receive_apart("folder", path, results, dataset, **options))
        except UploadError as error:
            refused.append(f"{shown}: {error.message}")
        except Exception as error:  # the next one is not to suffer
            refused.append(f"{shown}: it could not be scored: {error}")
    return receipts, refused


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the app, or take in a folder of submissions; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m medground_bench.pages.leaderboard.app", description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="folder of score files; uploads add to it")
    parser.add_argument("--dataset", type=Path, required=True, help="dataset folder with the references")
    parser.add_argument("--config", help="accept only submissions for this config")
    parser.add_argument("--ingest", type=Path, metavar="FOLDER", help="score the submissions below FOLDER and end")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (a Space needs 0.0.0.0)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on")
    parser.add_argument("--quota", type=int, default=QUOTA, help="submissions of one account (or author) a day")
    parser.add_argument(
        "--own", action="store_true", help="with --ingest: they are yours, and may have the names of published methods"
    )
    options = parser.parse_args(arguments)
    try:
        if options.ingest is not None:
            receipts, refused = ingest(
                options.ingest,
                options.results,
                options.dataset,
                config=options.config,
                quota=options.quota,
                owner=options.own,
            )
            for receipt in receipts:
                print(f"added: {receipt.method} for {receipt.lvlm}, {receipt.mode}: {receipt.path.name}")
            for line in refused:
                print(printable(f"left out: {line}"), file=sys.stderr)
            return 0
        app = build_app(options.results, options.dataset, config=options.config, quota=options.quota)
        serve(app, options.host, options.port)
    except MedGroundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def serve(app: gradio.Blocks, host: str, port: int | None, *, block: bool = True) -> str:
    """Listen until interrupted (or in the background); returns the local address."""
    _, address, _ = app.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=not block,
        prevent_thread_lock=not block,
        max_file_size=Limits().archive_bytes,
        allowed_paths=[],
        show_error=False,
    )
    return str(address)


if __name__ == "__main__":
    sys.exit(main())
