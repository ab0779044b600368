"""Attacks on the board, each tried and counted; the heavy ones print a table of attack, tries, held, failed.

``pytest -m heavy -s tests/pages/leaderboard/test_attacks.py`` shows the table, the board under load and the curve of
the adaptive attacker.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.schema import candidate_id, masked_id
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.masking import dataset_key
from medground_bench.dataset.publish import ids_only_copy
from medground_bench.imaging.areas import ragged
from medground_bench.pages.leaderboard.app import ingest
from medground_bench.pages.leaderboard.archive import UploadError
from medground_bench.pages.leaderboard.names import is_reserved, skeleton
from medground_bench.pages.leaderboard.public import public_scores
from medground_bench.pages.leaderboard.uploads import receive_archive
from medground_bench.pages.leaderboard.worker import receive_apart
from medground_bench.scoring.aggregate import aggregate, record_scores, score_quotients
from medground_bench.scoring.files import ScoreFile, SubmissionScores
from medground_bench.scoring.table import load_reference
from medground_bench.submission import write_submission
from medground_bench.submission.submit import outgoing_copy
from tests.scoring.folders import header, make_rows, perfect, write_folder
from tests.submission.test_mutations import run_mutations

ROWS = make_rows(40, lvlms=("tiny_a",))

LOOKALIKES = [
    "Whole Image", "whole_image", " WHOLE-IMAGE ", "who1e image", "wh0le image", "whоle image", "ｗhole image",
    "Random.Box", "rand0m box", "centre prior", "Centre  Prior", "chance", "Chance: mine", "сhance row",
    "control: random", "c0ntrol x", "Contrоl", "GradCAM", "grad-cam", "grad cam++", "Gradcаm", "MedFocus", "rnedfocus",
    "med.focus", "RISE", "r1se", "R|SE", "Occ1usion", "0cclusion", "ATTENTION", "attenti0n", "Ceiling of boxes",
    "human", "Human reader",
]  # fmt: skip


def archive(path: Path, rows: list[dict[str, Any]], more: dict[str, bytes] | None = None, **facts: Any) -> Path:
    files = {
        "s/submission.json": json.dumps(header(ROWS, **facts)).encode(),
        "s/predictions.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in rows),
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def large_map() -> bytes:
    """A map that says it is large, in a small file."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (8000, 8000)})
    return stream.getvalue() + bytes(1 << 20)


def hostile(root: Path) -> dict[str, Path]:
    """One archive of every kind that once cost the server its time, its memory or its nerve."""
    good = perfect(ROWS)
    box = [1, 1, 5, 5]

    def first(**changes: Any) -> list[dict[str, Any]]:
        return [{**good[0], **changes}, *good[1:]]

    crowded = [{**row, "boxes": [[k % 600, k % 500, k % 600 + 3, k % 500 + 3] for k in range(1000)]} for row in good]
    junk = np.random.default_rng(0).bytes(8 << 20)
    return {
        "20,000 boxes in a row": archive(root / "a.zip", first(boxes=[box] * 20_000), method="a"),
        "400,000 boxes in a row": archive(root / "b.zip", first(boxes=[box] * 400_000), method="b"),
        "1,000 boxes in every row": archive(root / "c.zip", crowded, method="c"),
        "a million tokens": archive(root / "d.zip", first(tokens=[1] * 1_000_000), method="d"),
        "millions of tokens": archive(root / "l.zip", first(tokens=[0.1] * 3_000_000), method="l"),
        "an object of a million keys": archive(
            root / "e.zip", first(extras={str(k): k for k in range(1_000_000)}), method="e"
        ),
        "faults without end": archive(root / "f.zip", [{"id": str(k), "boxes": [[9]]} for k in range(170)], method="f"),
        "bomb beside junk": archive(
            root / "g.zip", good, {"junk.bin": junk, "s/heatmaps/x.npy": bytes(3 << 20)}
            | {f"s/heatmaps/{k}.npy": bytes(3 << 20) for k in range(40)}, method="g"
        ),
        "a heat map of 64 megapixels": archive(
            root / "h.zip", first(heatmap="heatmaps/a.npy"), {"s/heatmaps/a.npy": large_map()}, method="h"
        ),
        "not a number in the header": archive(root / "i.zip", good, seed=float("nan"), method="i"),
        "half a character in a text": archive(root / "j.zip", first(error="\ud800"), method="j"),
        "mostly empty": archive(root / "k.zip", [good[0], *({**r, "boxes": []} for r in good[1:])], method="k"),
    }  # fmt: skip


# --- what the table counts: (tries, failures)

Outcome = tuple[int, int]


def dictionary(root: Path) -> Outcome:
    """Which findings are on which images, from everything that is published or sent."""
    folder = write_folder(root / "dictionary", ROWS)
    opened = open_folder(folder, "direct")
    ids_only_copy(folder, root / "ids")
    shown = {i for (i,) in open_folder(root / "ids", "direct").values("id")}
    submission = write_submission(root / "s", header(ROWS), perfect(ROWS))
    outgoing_copy(submission, opened, root / "sent")
    shown |= {json.loads(line)["id"] for line in (root / "sent" / "predictions.jsonl").read_text().splitlines()}
    published = b"".join(p.read_bytes() for p in sorted((root / "ids").rglob("*")) if p.is_file())
    guesses = [
        f"tiny_a/direct/{candidate_id(d, i, a)}"
        for d in ("imagenome", "vindr_cxr")
        for i in {r["image_id"] for r in ROWS}
        for a in {r["attribute"] for r in ROWS}
    ]
    keys = [b"", opened.fingerprint.encode(), bytes.fromhex(opened.fingerprint[7:]), b"medground-bench"]
    found = sum(masked_id(guess, key) in shown for guess in guesses for key in keys)
    images = {r["image_id"].encode() for r in ROWS}
    assert {masked_id(r["id"], dataset_key(opened)) for r in ROWS} <= shown
    return len(guesses) * len(keys) + len(images), found + sum(image in published for image in images)


def names(root: Path) -> Outcome:
    """Names that a reader takes for a chance row, a control or a published method."""
    dataset, results = write_folder(root / "names", ROWS), root / "names-results"
    failed = sum(not is_reserved(name) for name in LOOKALIKES)
    for first, second in [("My Method", "my-method"), ("Lab X", "1ab_x"), ("mine", "rnine")]:
        path = archive(root / "n.zip", perfect(ROWS), method=first)
        receive_archive(path, results, dataset, account="A", resamples=100)
        try:
            second_archive = archive(root / "n.zip", perfect(ROWS), method=second)
            receive_archive(second_archive, results, dataset, account="B", resamples=100)
            failed += 1
        except UploadError:
            pass
    return len(LOOKALIKES) + 3, failed


def membership(root: Path) -> Outcome:
    """Whether the answer to a guessed id differs from that to an id that was left out, or to nonsense."""
    dataset, results = write_folder(root / "members", ROWS), root / "members-results"
    good = perfect(ROWS)
    guesses = [
        good[1:],
        [{**good[0], "id": "nonsense"}, *good[1:]],
        [{**good[0], "id": good[0]["id"].replace("/img000/", "/img001/")}, *good[1:]],
        [{**good[0], "id": good[0]["id"] + "#2"}, *good[1:]],
        [*good, {"id": "nonsense", "boxes": []}],
        [{**good[0], "id": "nonsense", "boxes": [[0, 0, 1e8, 1e8]]}, *good[1:]],
        [*good[:-1]],
    ]
    answers = set()
    for k, rows in enumerate(guesses):
        try:
            receive_archive(
                archive(root / "m.zip", rows, method=f"m{k}"), results, dataset, account=str(k), resamples=100
            )
            answers.add(f"accepted {k}")
        except UploadError as error:
            answers.add(str(error))
    return len(guesses), len(answers) - 1


def shown_numbers(root: Path) -> Outcome:
    """Full precision, small groups, single records, warnings that depend on the evidence: in what is kept and told."""
    dataset, results = write_folder(root / "numbers", ROWS), root / "numbers-results"
    half = [{**row, "boxes": [[b * 0.5 for b in box] for box in row["boxes"]]} for row in perfect(ROWS)]
    receipt = receive_archive(archive(root / "r.zip", half, method="halves"), results, dataset, resamples=100)
    data = json.loads(receipt.path.read_text())
    (one,) = data["submissions"]
    groups = [*one["aggregates"], *(a for found in one["chance_aggregates"].values() for a in found)]
    values = [x for a in groups for v in (*a["values"].values(), [a["p_chance"]]) for x in v if x is not None]
    failed = [x for x in [*values, *receipt.iou] if round(x, 2) != x]
    failed += [a for a in groups if a["records"] < 20]
    failed += [name for name, column in data["records"].items() if column]
    failed += [w for w in receipt.warnings if "IoU" in w or "frame" in w]
    return len(values) + len(groups) + len(data["records"]) + 1, len(failed) + bool(one["rows"] or one["scores"])


def quota(root: Path) -> Outcome:
    dataset, results = write_folder(root / "quota", ROWS), root / "quota-results"
    passed = 0
    for k in range(6):
        try:
            rows = (
                perfect(ROWS)[1:] if k % 2 else perfect(ROWS)
            )  # what is refused counts too: its answer says something
            receive_archive(
                archive(root / "q.zip", rows, method=f"q{k}"), results, dataset, account="A", quota=3, resamples=100
            )
            passed += 1
        except UploadError as error:
            passed += "a day" not in str(error)
    return 6, passed - 3


def work(root: Path) -> Outcome:
    """Archives of every hostile kind, in the worker: answered, and in seconds."""
    dataset, results = write_folder(root / "work", ROWS), root / "work-results"
    kinds = hostile(root)
    failed = 0
    for name, path in kinds.items():
        start = time.monotonic()
        outcome = "accepted"
        try:
            receive_apart("archive", path, results, dataset, resamples=100, account=name)
        except UploadError as error:
            outcome = error.message.splitlines()[0][:60]
        except RuntimeError as error:
            outcome, failed = f"FAILED {error}", failed + 1
        print(f"  {name}: {outcome} ({time.monotonic() - start:.1f} s)")
    return len(kinds), failed


def ingested(root: Path) -> Outcome:
    """A clone with hostile folders beside honest ones: the honest ones are scored, links are refused."""
    dataset, clone = write_folder(root / "ingest", ROWS), root / "clone"
    secret = root / "secret.jsonl"
    secret.write_text("".join(json.dumps(r) + "\n" for r in perfect(ROWS)))
    for k in range(2):
        write_submission(clone / f"z{k}", header(ROWS, method=f"honest {k}"), perfect(ROWS))
    for name in ("a-link", "a-map", "a-map-folder"):
        write_submission(clone / name, header(ROWS, method=name), perfect(ROWS))
    (clone / "a-link" / "predictions.jsonl").unlink()
    (clone / "a-link" / "predictions.jsonl").symlink_to(secret)
    (clone / "a-map" / "heatmaps").mkdir()
    (clone / "a-map" / "heatmaps" / "x.npy").symlink_to(secret)
    (clone / "a-map-folder" / "heatmaps").symlink_to(root)
    (clone / "b").mkdir()
    (clone / "b" / "submission.json").write_bytes(b"\xff\x00[")
    (clone / "c").symlink_to(clone / "z0")
    receipts, refused = ingest(clone, root / "ingest-results", dataset, resamples=100, quota=50)
    return 6, 2 - len(receipts) + 4 - len(refused)


ATTACKS: dict[str, Callable[[Path], Outcome]] = {
    "dictionary of images and findings": dictionary,
    "names that look like another's": names,
    "which records there are": membership,
    "precision, small groups, single records, warnings": shown_numbers,
    "more submissions than allowed": quota,
    "endless work, memory, malformed texts": work,
    "hostile folders in --ingest": ingested,
    "mutated submissions (a traceback)": lambda root: (500, 500 - sum(run_mutations(500, 2, root / "mutations"))),
}


@pytest.mark.heavy
def test_every_attack_is_held(tmp_path: Path) -> None:
    table = []
    for name, attack in ATTACKS.items():
        (tmp_path / str(len(table))).mkdir()
        tries, failed = attack(tmp_path / str(len(table)))
        table.append((name, tries, tries - failed, failed))
    print(f"\n{'attack':52}{'tries':>7}{'held':>7}{'failed':>7}")
    for name, tries, held, failed in table:
        print(f"{name:52}{tries:7}{held:7}{failed:7}")
    assert not any(failed for *_, failed in table)


@pytest.mark.parametrize("attack", [dictionary, names, membership, shown_numbers, quota], ids=lambda a: a.__name__)
def test_quick_attacks_are_held(attack: Callable[[Path], Outcome], tmp_path: Path) -> None:
    tries, failed = attack(tmp_path)
    assert tries > 5
    assert failed == 0


def test_honest_names_are_free() -> None:
    assert not any(map(is_reserved, ("oracle", "My method 2", "LabX-CAM", "vision-probe", "honest 1")))
    assert len({skeleton(n) for n in ("alpha", "beta", "gamma", "method a", "method b")}) == 5


def test_the_worker_ends_what_takes_too_long_or_too_much(tmp_path: Path) -> None:
    dataset, results = write_folder(tmp_path / "dataset", ROWS), tmp_path / "results"
    good = archive(tmp_path / "good.zip", perfect(ROWS))
    with pytest.raises(UploadError, match=r"more than 0\.01 seconds"):
        receive_apart("archive", good, results, dataset, resamples=100, seconds=0.01)
    noise = np.random.default_rng(0).bytes(1 << 20).hex()  # what does not shrink in an archive
    big = [{**row, "extras": {"x": noise}} for row in perfect(ROWS)]
    with pytest.raises(UploadError, match="memory"):
        receive_apart("archive", archive(tmp_path / "big.zip", big), results, dataset, resamples=100, memory=24 << 20)
    assert not results.is_dir() or not list(results.glob("*.json"))
    receipt = receive_apart("archive", good, results, dataset, resamples=100)
    assert receipt.iou is not None
    assert receipt.iou.value == 1.0
    assert receipt.path.is_file()


# --- the board under load


def _memory(root_pid: int) -> int:
    """Bytes in the private memory of all processes that descend from one, itself left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    total = 0
    for pid in parents:
        at = pid
        while at in parents and at != root_pid:
            at = parents[at]
        if at == root_pid and pid != root_pid:
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                continue
    return total


@pytest.mark.heavy
def test_honest_uploads_are_answered_beside_hostile_ones(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc on this system")
    dataset, results = write_folder(tmp_path / "dataset", ROWS), tmp_path / "results"
    kinds = hostile(tmp_path)
    alone = []
    for number in range(4):  # the first one starts the server of workers
        start = time.monotonic()
        path = archive(tmp_path / "w.zip", perfect(ROWS), method=f"alone {number}")
        receive_apart("archive", path, results, dataset, account="alone")
        alone.append(time.monotonic() - start)
    one = float(np.median(alone[1:]))
    seconds: dict[str, float] = {}
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], _memory(os.getpid()))

    def send(name: str, path: Path) -> None:
        start = time.monotonic()
        with contextlib.suppress(UploadError):
            receive_apart("archive", path, results, dataset, account=name)
        seconds[name] = time.monotonic() - start

    honest = {f"honest {k}": archive(tmp_path / f"h{k}.zip", perfect(ROWS), method=f"honest {k}") for k in range(8)}
    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=send, args=item) for item in (*kinds.items(), *honest.items())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    slowest = max(seconds[name] for name in honest)
    memory = f"{peak[0] / 2**20:.0f} MB"
    alone_and_beside = f"one upload alone {one:.1f} s, slowest of 8 beside {len(kinds)} hostile ones {slowest:.1f} s"
    print(f"\n{alone_and_beside}; workers {memory}")
    assert len(list(results.glob("*.json"))) >= 12
    assert peak[0] < 1 << 30


# --- what an adaptive attacker learns

SIDE = 1024.0


class _Record:
    def __init__(self, row: dict[str, Any]) -> None:
        self.__dict__.update(row)
        self.regions: tuple[str, ...] = ()
        self.size = (row["width"], row["height"])


class Oracle:
    """The board, as far as numbers go: the same scores, rounded by the same function, without files in between."""

    def __init__(self, records: int, decimals: int | None) -> None:
        self.rows = make_rows(records, lvlms=("tiny_a",), size=(int(SIDE), int(SIDE)), seed=5)
        self.reference = load_reference([_Record(r) for r in self.rows], config="direct")  # type: ignore[misc]
        self.decimals = decimals

    def recall(self, target: int, probe: list[float], others: list[float]) -> float:
        """The mean recall shown for a submission that answers one record with one box, all others with another."""
        boxes = [[probe] if k == target else [others] for k in range(len(self.rows))]
        scores = record_scores(ragged(boxes), self.reference.boxes, self.reference.sizes)
        found = aggregate(score_quotients(scores), self.reference.table, ("all",), resamples=0)
        one = SubmissionScores({}, "", np.arange(len(boxes)), {}, found, {})
        file = ScoreFile("direct", "", len(boxes), self.reference.table, {}, [one])
        if self.decimals is not None:
            file = public_scores(file, decimals=self.decimals)
        return float(file.submissions[0].aggregates[0].values["recall"].value)


def adaptive(oracle: Oracle, target: int, uploads: int) -> list[float]:
    """Mean error in pixels of the sides of one record's box after every upload of an attacker.

    The attacker answers all other records with the same box. First it makes that box, by bisection, such that the mean
    lies just below an edge of the rounding: then the least that the target adds is seen. Then it answers the target
    with strips from the left, top, right and bottom border, and sees whether they meet the evidence: four bisections.
    """
    evidence = np.array(oracle.rows[target]["boxes"])
    truth = np.array([*evidence[:, :2].min(axis=0), *evidence[:, 2:].max(axis=0)])
    low, high = np.zeros(4), np.full(4, SIDE)  # between which each side is known to lie
    miss, errors = [0.0, 0.0, 1.0, 1.0], []

    def ask(probe: list[float], width: float) -> float:
        shown = oracle.recall(target, probe, [0.0, 0.0, width, SIDE])
        errors.append(float(np.abs((low + high) / 2 - truth).mean()))
        return shown

    below, above = 1.0, SIDE
    quiet = ask(miss, below)
    if oracle.decimals is not None:
        for _ in range(24):
            middle = (below + above) / 2
            if ask(miss, middle) == quiet:
                below = middle
            else:
                above = middle
    for k in (0, 1, 2, 3) * 10:
        middle = float(low[k] + high[k]) / 2
        strip = [0.0, 0.0, SIDE, SIDE]
        strip[(k + 2) % 4] = middle
        if k < 2:  # from the left or top border up to the middle
            met = ask(strip, below) != quiet
            low[k], high[k] = (low[k], middle) if met else (middle, high[k])
        else:
            met = ask(strip, below) != quiet
            low[k], high[k] = (middle, high[k]) if met else (low[k], middle)
        errors[-1] = float(np.abs((low + high) / 2 - truth).mean())
    return [*errors, *[errors[-1]] * uploads][:uploads]


@pytest.mark.heavy
def test_the_curve_of_the_adaptive_attacker() -> None:
    """Documented in SECURITY.md: rounding costs the attacker uploads, but is no secret."""
    budgets = (1, 10, 20, 30, 40, 50, 60, 70)
    print(f"\n{'mean error of a side in pixels of 1,024':40}" + "".join(f"{b:>6}" for b in budgets) + "  uploads")
    curves = []
    for records, decimals in ((40, None), (40, 2), (400, 2), (4000, 2)):
        oracle = Oracle(records, decimals)
        errors = np.mean([adaptive(oracle, target, max(budgets)) for target in range(6)], axis=0)
        curves.append([float(errors[b - 1]) for b in budgets])
        name = f"{records} records, {'full precision' if decimals is None else f'{decimals} decimals'}"
        print(f"{name:40}" + "".join(f"{e:6.0f}" for e in curves[-1]), flush=True)
    full, *rounded = curves
    assert full[4] < 2, "without rounding the box is found: the attack works"
    for errors in rounded:
        assert errors[2] > 100, "the 20 uploads of a day tell nothing yet"
