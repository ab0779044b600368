"""The records of the report's gallery: image, evidence, and what each method said."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.causal.answers import read_answer
from medground_bench.causal.verdicts import EXPECTED
from medground_bench.imaging import Letterbox, is_degenerate, resize_heatmap
from medground_bench.scoring import concept_reference
from medground_bench.scoring.outcomes import ELSEWHERE, air_around, outcomes, where_else
from medground_bench.scoring.places import tell_shares

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.causal.kept import KeptEdits
    from medground_bench.dataset.columns import Record
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.pages.report.shelf import Shelf
    from medground_bench.scoring import ScoreFile, SubmissionScores
    from medground_bench.sources import Source
    from medground_bench.submission import Prediction, Submission

__all__ = ["Judged", "choose", "classes", "gallery_records"]

IMAGE_SIDE = 448
STRIP_SIDE = 224
HEAT_SIDE = 56

Judged = tuple["Submission", "SubmissionScores"]
"""A submission and its scores."""

_ASKED = {
    "original": ("original", "prediction"),
    "foreground": ("finding removed", "prediction_edited"),
    "background": ("all else edited", "prediction_edited_kept"),
    "background_normal": ("all else made normal", "prediction_edited_kept_normal"),
}
"""Answer of the causal filter -> title of its picture, and the record's column that holds it."""


def classes(
    folder: DatasetFolder, judged: Sequence[Judged], ids: Sequence[str], sources: Sequence[Source]
) -> list[list[str]]:
    """For every submission the class of each of its records (:data:`~medground_bench.scoring.outcomes.OUTCOMES`).

    Images are read of those records only that some prediction misses.
    """
    found = [outcomes(scores.scores) for _, scores in judged]
    boxes: list[dict[str, Sequence[Sequence[float]]]] = []
    for (submission, scores), names in zip(judged, found, strict=True):
        open_ = {ids[i] for i, name in zip(scores.positions.tolist(), names, strict=True) if name == ELSEWHERE}
        boxes.append({p.id: p.boxes for p in submission if p.id in open_})
    wanted = set().union(*boxes) if boxes else set()
    records = {record.id: record for record in folder if record.id in wanted}
    known = concept_reference(list(records.values()), sources) if records else None
    place = {key: k for k, key in enumerate(records)}
    air: dict[tuple[str, str], np.ndarray] = {}

    def air_of(record: Record) -> np.ndarray:
        key = (record.dataset, record.image_id)
        if key not in air:
            air[key] = air_around(record.image)
        return air[key]

    for (_, scores), names, mine in zip(judged, found, boxes, strict=True):
        for k, i in enumerate(scores.positions.tolist()):
            if ids[i] in mine:
                record = records[ids[i]]
                names[k] = where_else(
                    mine[record.id],
                    record.boxes,
                    record.size,
                    air=partial(air_of, record),
                    holds=known.holding[place[record.id]] if known else frozenset(),
                    anatomy=known.anatomy[place[record.id]] if known else None,
                )
    return found


def choose(ids: Sequence[str], count: int, seed: int, shows: Mapping[str, Iterable[Any]] | None = None) -> set[str]:
    """A seeded sample of record ids, all of them if there are no more than ``count``.

    Parameters
    ----------
    ids : sequence of str
        Of the records.
    count : int
        How many.
    seed : int
        Of the sample.
    shows : mapping of str to iterable, optional
        What a record is an example of: half of the sample at most goes to records that show something new.
    """
    if len(ids) <= count:
        return set(ids)
    order = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    picked: dict[str, None] = {}
    seen: set[Any] = set()
    for key in order:
        new = set((shows or {}).get(key, ())) - seen
        if new and len(picked) < count // 2:
            picked[key] = None
            seen |= new
    return set([*picked, *(key for key in order if key not in picked)][:count])


def gallery_records(
    folder: DatasetFolder,
    judged: Sequence[Judged],
    file: ScoreFile,
    chosen: set[str],
    shelf: Shelf,
    edits: Sequence[KeptEdits] = (),
) -> dict[str, tuple[int, int]]:
    """Put the chosen records of a config on the shelf, as the page's script reads them.

    Parameters
    ----------
    folder : DatasetFolder
        The config.
    judged : sequence of Judged
        Submissions for it, with their scores.
    file : ScoreFile
        Theirs.
    chosen : set of str
        Which records.
    shelf : Shelf
        Where they go.
    edits : sequence of KeptEdits
        Where the causal filter's pictures are.

    Returns
    -------
    dict of str to (int, int)
        Record id -> its number and its picture's.
    """
    ids = file.table.id.tolist()
    said = [_by_record(submission, scores, file, chosen) for submission, scores in judged]
    at = {key: k for k, key in enumerate(ids) if key in chosen}
    places = {}
    for record in folder:
        if record.id not in chosen:
            continue
        image = shelf.picture(f"{record.dataset}/{record.image_id}", partial(getattr, record, "image"), IMAGE_SIDE)
        predictions = {
            scores.method: _prediction(submission, *by_record[record.id])
            for (submission, scores), by_record in zip(judged, said, strict=True)
            if record.id in by_record
        }
        frame = _frame(record, judged)
        detail = {
            "id": record.id,
            "image_id": record.image_id,
            "question": record.question,
            "response": record.response,
            "width": record.width,
            "height": record.height,
            "boxes": record.boxes,
            "lies": _lies(file, at[record.id], file.evidence_places, at[record.id], "evidence"),
            "content": list(frame.content),
            "frame": [frame.frame_width, frame.frame_height],
            "strip": _strip(record, image, shelf, edits),
            "predictions": predictions,
        }
        places[record.id] = (shelf.record(detail), image)
    return places


def _strip(record: Record, image: int, shelf: Shelf, edits: Sequence[KeptEdits]) -> list[dict[str, Any]]:
    """The four questions of the causal filter: picture, answer, what it reads, and what it must be."""
    answers = {name: getattr(record, column) for name, (_, column) in _ASKED.items()}
    if all(text is None for text in answers.values()):
        return []
    found: dict[str, Image] = {}
    if edits:
        native = record.image
        for one in edits:
            found = one.images(record, native, record.boxes) | found
    out = []
    for name, (title, _) in _ASKED.items():
        key = f"{record.dataset}/{record.image_id}/{record.boxes}/{record.attribute}/{name}"
        place = shelf.picture(key, partial(found.__getitem__, name), STRIP_SIDE) if name in found else None
        out.append(
            {
                "title": title,
                "image": image if name == "original" else place,
                "answer": answers[name],
                "read": read_answer(answers[name], record.attribute),
                "expected": EXPECTED[name],
            }
        )
    return out


def _frame(record: Record, judged: Sequence[Judged]) -> Letterbox:
    return next((s.letterbox(record.size) for s, _ in judged), Letterbox.fit(*record.size))


def _by_record(
    submission: Submission, scores: SubmissionScores, file: ScoreFile, chosen: set[str]
) -> dict[str, tuple[Prediction, list[float], str]]:
    """Record id -> prediction, its four scores, and where it lies."""
    ids = file.table.id.tolist()
    at = {ids[i]: (k, i) for k, i in enumerate(scores.positions.tolist()) if ids[i] in chosen}
    out = {}
    for said in submission:
        if said.id in at:
            k, i = at[said.id]
            four = [float(scores.scores[m][k]) for m in ("iou", "f1", "precision", "recall")]
            out[said.id] = said, four, _lies(file, i, scores.places, k, scores.places_of)
    return out


def _lies(file: ScoreFile, record: int, shares: np.ndarray | None, row: int, of: str) -> str:
    """The sentence for a record of the file's table, from a row of shares."""
    known = shares is not None and file.area_places is not None and not np.isnan(file.area_places[record]).any()
    return tell_shares(shares[row] if known and shares is not None else None, of)


def _prediction(submission: Submission, said: Prediction, scores: list[float], lies: str) -> dict[str, Any]:
    out: dict[str, Any] = {
        "boxes": said.boxes,
        "scores": scores,
        "note": _note(said),
        "fallback": said.fallback,
        "lies": lies,
    }
    heatmap = submission.heatmap(said)
    if heatmap is not None and not is_degenerate(np.asarray(heatmap)):
        out["heat"] = _heat(np.asarray(heatmap, np.float64))
    if said.concept_scores:
        out["concept"] = said.concept or ""
        out["concepts"] = sorted(said.concept_scores.items(), key=lambda item: -item[1])
    texts = said.extras.get("token_texts")
    if said.tokens and isinstance(texts, list) and len(texts) == len(said.tokens):
        out["tokens"], out["texts"] = said.tokens, [str(t) for t in texts]
    return out


def _note(said: Prediction) -> str:
    if said.error:
        return f"failed: {said.error}"
    notes = [name for name in ("fallback", "degenerate") if getattr(said, name)]
    if not said.boxes:
        notes.append("no boxes")
    if said.concept:
        notes.insert(0, said.concept)
    return ", ".join(notes)


def _heat(heatmap: np.ndarray) -> dict[str, Any]:
    """A map as bytes, min-max scaled, at most :data:`HEAT_SIDE` cells a side."""
    rows, cols = (min(HEAT_SIDE, n) for n in heatmap.shape)
    small = heatmap if heatmap.shape == (rows, cols) else resize_heatmap(heatmap, (rows, cols))
    low, high = float(np.min(small)), float(np.max(small))
    scaled = (small - low) / (high - low) if high > low else np.zeros_like(small)
    data = base64.b64encode(np.round(255 * scaled).astype(np.uint8).tobytes()).decode()
    return {"rows": rows, "cols": cols, "low": low, "high": high, "data": data}
