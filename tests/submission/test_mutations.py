"""Mutated submissions: each is refused by ``validate``, or everything that reads submissions can live with it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from medground_bench.cli._score_tables import print_comparison, print_scores
from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import sha256_of
from medground_bench.dataset.folder import open_folder
from medground_bench.pages.leaderboard import collect_results, leaderboard_page
from medground_bench.pages.leaderboard.archive import UploadError
from medground_bench.pages.leaderboard.uploads import receive_folder
from medground_bench.pages.report import write_report
from medground_bench.scoring import compare_scores, read_scores, score_submissions, write_scores
from medground_bench.submission import validate_submission
from medground_bench.submission.submit import submit
from tests.scoring.folders import header, make_rows, perfect, write_folder

ROWS = make_rows(4, lvlms=("tiny_a",), size=(200, 160))

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, 224, 65536, 10**9, 1e300, -1e300, 10**30, 10**400, float("nan"), float("inf"),
    "", " ", "x", "[/x]", "[bold]", "[red", "\x1b[31mred\x1b[0m", "\x00", "\x07", "\ud800", "a\udfffb", "\u202e",
    "../../etc/passwd", "/etc/passwd", "C:\\x", "<script>alert(1)</script>", "</script>", "{{ 7*7 }}", "${x}", "%s%n",
    "a\nb", "\u2028", "x" * 5000, "é" * 300, "chance: whole image", "__proto__", "direct", "reason", "tiny_a",
    [], {}, [[]], [None], [0, 0, 5, 5], [[0, 0, 5, 5]], [[0, 0, 5, 5]] * 1001, [[5, 5, 0, 0]], [[0, 0, 1e9, 1]],
    {"": ""}, {"a": {"b": {"c": [1, {"d": None}]}}}, {"frame_side": None}, {"frame_side": "224"}, {"frame_side": -1},
    {"frame_side": 0}, {"frame_side": 224.5}, {"frame_side": [1]}, {"frame_side": 10**20}, {"[/x]": "[/y]"},
    {"token_texts": ["[/x]", 3, None]}, {"token_texts": "ab"}, {"left lung": 10**300}, {"left lung": -0.0},
    "heatmaps/a.npy", "heatmaps/none.npy", "heatmaps", "predictions.jsonl",
]  # fmt: skip
HEADER_KEYS = ["method", "lvlm", "mode", "lvlm_revision", "dataset_fingerprint", "settings", "seed", "versions",
               "authors", "licence", "created", "strange", "[/x]", "\x1b[2J", "\ud83d"]  # fmt: skip
ROW_KEYS = ["id", "boxes", "concept", "concept_scores", "tokens", "fallback", "degenerate", "heatmap", "extras",
            "error", "strange", "[/x]", "\ud83d"]  # fmt: skip
RAW_VALUES = [b"NaN", b"-Infinity", b"1e999", b"-1e999", b"9" * 5000, b"0." + b"9" * 5000, b'"\\ud800"', b'"\\udc00x"',
              b"{}", b"nul", b"[" * 3000 + b"]" * 3000, b'{"a":1,"a":2}', b'"\xff"', b"\xef\xbb\xbf1"]  # fmt: skip


def place(root: Path) -> Path:
    """A dataset folder with images, which the report shows."""
    folder = write_folder(root / "dataset", ROWS)
    stream = io.BytesIO()
    Image.fromarray(np.arange(200 * 160, dtype=np.uint32).reshape(160, 200).astype(np.uint8)).save(stream, "PNG")
    build = json.loads((folder / "build.json").read_text())
    (name,) = build["configs"]["direct"]["files"]
    pq.write_table(pa.Table.from_pylist([{**r, "image": {"bytes": stream.getvalue(), "path": None}} for r in ROWS]),
                   folder / name)  # fmt: skip
    facts = build["configs"]["direct"]["files"][name]
    facts["bytes"] = (folder / name).stat().st_size
    facts["sha256"] = sha256_of(folder / name)
    (folder / "build.json").write_text(json.dumps(build))
    return folder


def rich_rows() -> list[dict[str, Any]]:
    """Rows that have everything a row can have."""
    return [
        {
            **row,
            "concept": "left lung",
            "concept_scores": {"left lung": 1.0, "right lung": 0.5},
            "tokens": [0.5, 0.25],
            "fallback": False,
            "degenerate": False,
            "heatmap": "heatmaps/a.npy",
            "extras": {"token_texts": ["Yes", "."]},
            "error": "it failed",
        }
        for row in copy.deepcopy(perfect(ROWS))
    ]


def mutate(rng: random.Random, folder: Path) -> str:
    """Write a submission with one or two things changed; what they were."""
    facts: Any = header(ROWS, method=f"method {rng.randrange(10**9)}")
    rows: list[Any] = rich_rows()
    (folder / "heatmaps").mkdir(parents=True)
    np.save(folder / "heatmaps" / "a.npy", np.eye(8, dtype=np.float32))
    raw: list[tuple[bool, bytes]] = []
    told = []

    def in_place(tree: Any, keys: list[str]) -> Any:
        """Change something in a tree: a key of the top, or a random place below."""
        if not isinstance(tree, dict):  # an earlier change has put something else here
            return tree
        key = rng.choice(keys)
        if rng.random() < 0.1:
            tree.pop(key, None)
            told.append(f"without {key!r}")
        elif rng.random() < 0.6 or not isinstance(tree.get(key), dict | list) or not tree[key]:
            tree[key] = copy.deepcopy(rng.choice(VALUES))
            told.append(f"{key!r} = {str(tree[key])[:40]!r}")
        else:
            inner = tree[key]
            while True:
                at = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
                if isinstance(inner[at], dict | list) and inner[at] and rng.random() < 0.7:
                    inner = inner[at]
                    continue
                inner[at] = copy.deepcopy(rng.choice(VALUES))
                told.append(f"in {key!r} {str(inner[at])[:40]!r}")
                break
        return tree

    for _ in range(rng.choice([1, 1, 1, 2])):
        kind = rng.random()
        if kind < 0.35:
            in_place(facts, HEADER_KEYS)
        elif kind < 0.8:
            in_place(rng.choice(rows), ROW_KEYS)
        elif kind < 0.9:
            raw.append((rng.random() < 0.4, rng.choice(RAW_VALUES)))
            told.append(f"raw {raw[-1][1][:20]!r}")
        elif kind < 0.95:
            array: Callable[[], Any] = rng.choice(
                [
                    lambda: np.full((4, 4), np.nan), lambda: np.zeros((0, 3)), lambda: np.zeros(3),
                    lambda: np.array([[1 + 2j]]), lambda: np.full((3, 3), 1e308), lambda: np.zeros((2, 2), bool),
                    lambda: np.full((2, 2), -(2**62)), lambda: np.full((5, 5), np.float16(6e4)),
                    lambda: np.zeros((2100, 2000), np.uint8),
                ]
            )  # fmt: skip
            np.save(folder / "heatmaps" / "a.npy", array())
            told.append("another heat map")
        else:
            rows.append(copy.deepcopy(rng.choice([rows[0], {}, [], None, 3, "x"])))
            told.append("another row")
    text = json.dumps(facts).encode()
    lines = [json.dumps(row).encode() for row in rows]
    for in_header, value in raw:
        k = rng.randrange(len(lines))
        key = rng.choice(HEADER_KEYS[:11] if in_header else ROW_KEYS[:10]).encode()
        before = text if in_header else lines[k]
        after = before.rstrip()[:-1] + b', "' + rng.choice([key + b"2", b"x", key]) + b'": ' + value + b"}"
        if in_header:
            text = after
        else:
            lines[k] = after
    (folder / "submission.json").write_bytes(text)
    (folder / "predictions.jsonl").write_bytes(b"\n".join(lines) + rng.choice([b"\n", b"", b"\n\n\n"]))
    return "; ".join(told)


def live_with(folder: Path, dataset: Path, work: Path) -> bool:
    """Put a submission through everything; whether it was valid. Anything but a refusal is raised."""
    opened = open_folder(dataset, "direct")
    report = validate_submission(folder, opened)
    json.dumps(report.to_json(), allow_nan=False).encode()
    assert all("\x1b" not in str(f) for f in (*report.faults, *report.warnings))
    results = work / "results"
    if not report.valid:
        with pytest.raises(MedGroundError):
            score_submissions([folder], opened, resamples=100)
        with pytest.raises(UploadError):
            receive_folder(folder, results, dataset, resamples=100, quota=10**6, min_records=1)
        return False
    path = write_scores(score_submissions([folder], opened, resamples=100), work / "scores" / "scores.json")
    scores = read_scores(path)
    terminal = io.StringIO()
    console = Console(file=terminal, width=200, force_terminal=True, color_system=None)
    print_scores(scores, console)
    print_comparison(compare_scores([scores], resamples=100), console, levels=["all"], metric="iou")
    assert "\x1b[2J" not in terminal.getvalue()
    assert "\x1b[31m" not in terminal.getvalue()
    write_report(work / "report.html", dataset, [folder], scores=[scores], records=4)
    leaderboard_page(*collect_results(work / "scores")).encode()
    with contextlib.suppress(MedGroundError):  # names that cannot be used in a path
        submit(folder, "lab/results", opened, dry_run=True, payload=work / "payload", heatmaps=True)
    with contextlib.suppress(UploadError):  # names and texts that cannot be shown beside others'
        receive_folder(folder, results, dataset, resamples=100, quota=10**6, min_records=1)
    if results.is_dir():
        leaderboard_page(*collect_results(results)).encode()
    return True


def run_mutations(count: int, seed: int, root: Path) -> tuple[int, int]:
    """How many of ``count`` mutated submissions were refused, and how many went through everything."""
    dataset = place(root)
    went = 0
    for k in range(count):
        rng = random.Random(f"{seed} {k}")
        work = root / str(k)
        told = mutate(rng, work / "submission")
        try:
            went += live_with(work / "submission", dataset, work)
        except Exception as error:
            raise AssertionError(f"mutation {k} ({told}): {type(error).__name__}: {error}") from error
    return count - went, went


def test_an_unchanged_submission_goes_through(tmp_path: Path) -> None:
    dataset = place(tmp_path)
    folder = tmp_path / "submission"
    (folder / "heatmaps").mkdir(parents=True)
    np.save(folder / "heatmaps" / "a.npy", np.eye(8, dtype=np.float32))
    (folder / "submission.json").write_text(json.dumps(header(ROWS, method="mine")))
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rich_rows()))
    assert live_with(folder, dataset, tmp_path)
    assert len(collect_results(tmp_path / "results")[0]) == 1


def test_some_mutated_submissions(tmp_path: Path) -> None:
    refused, went = run_mutations(50, 0, tmp_path)
    assert refused > 10
    assert went > 5


@pytest.mark.heavy
def test_many_mutated_submissions(tmp_path: Path) -> None:
    refused, went = run_mutations(600, 1, tmp_path)
    print(f"\nmutated submissions: {refused} refused, {went} went through everything, 0 tracebacks")
    assert refused > 100
    assert went > 60
