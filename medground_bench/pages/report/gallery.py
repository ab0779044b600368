"""The records of the report's gallery: image, evidence, and what each method said."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.imaging import Letterbox, is_degenerate, resize_heatmap

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.dataset.columns import Record
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import SubmissionScores
    from medground_bench.submission import Prediction, Submission

__all__ = ["Judged", "choose", "gallery_records"]

IMAGE_SIDE = 448
HEAT_SIDE = 56

Judged = tuple["Submission", "SubmissionScores"]
"""A submission and its scores."""


def choose(ids: Sequence[str], count: int, seed: int) -> set[str]:
    """A seeded sample of record ids, all of them if there are no more than ``count``."""
    if len(ids) <= count:
        return set(ids)
    picked = np.random.default_rng(seed).choice(len(ids), size=count, replace=False)
    return {ids[i] for i in picked}


def gallery_records(
    folder: DatasetFolder, judged: Sequence[Judged], ids: Sequence[str], chosen: set[str], images: dict[str, str]
) -> list[dict[str, Any]]:
    """The chosen records of a config as the page's script reads them.

    Parameters
    ----------
    folder : DatasetFolder
        The config.
    judged : sequence of Judged
        Submissions for it, with their scores.
    ids : sequence of str
        Record ids of the score table that the scores' ``rows`` point into.
    chosen : set of str
        Which records.
    images : dict
        Image key -> data URI; an image shared by several records is stored once. Extended here.
    """
    said = [_by_record(submission, scores, ids, chosen) for submission, scores in judged]
    records = []
    for record in folder:
        if record.id not in chosen:
            continue
        key = f"{record.dataset}/{record.image_id}"
        if key not in images:
            images[key] = _data_uri(record.image)
        predictions = {
            scores.method: _prediction(submission, *by_record[record.id])
            for (submission, scores), by_record in zip(judged, said, strict=True)
            if record.id in by_record
        }
        frame = _frame(record, judged)
        records.append(
            {
                "id": record.id,
                "image": key,
                "lvlm": record.model,
                "mode": record.mode,
                "dataset": record.dataset,
                "image_id": record.image_id,
                "attribute": record.attribute,
                "question": record.question,
                "response": record.response,
                "width": record.width,
                "height": record.height,
                "boxes": record.boxes,
                "content": list(frame.content),
                "frame": [frame.frame_width, frame.frame_height],
                "predictions": predictions,
            }
        )
    return records


def _frame(record: Record, judged: Sequence[Judged]) -> Letterbox:
    sides = [(s.header.get("settings") or {}).get("frame_side", 224) for s, _ in judged]
    side = next(iter(sides), 224)
    return Letterbox.fit(*record.size, side) if side else Letterbox.identity(*record.size)


def _by_record(
    submission: Submission, scores: SubmissionScores, ids: Sequence[str], chosen: set[str]
) -> dict[str, tuple[Prediction, list[float]]]:
    """Record id -> prediction and its four scores."""
    at = {ids[i]: k for k, i in enumerate(scores.positions.tolist()) if ids[i] in chosen}
    return {
        p.id: (p, [float(scores.scores[m][at[p.id]]) for m in ("iou", "f1", "precision", "recall")])
        for p in submission
        if p.id in at
    }


def _prediction(submission: Submission, said: Prediction, scores: list[float]) -> dict[str, Any]:
    out: dict[str, Any] = {"boxes": said.boxes, "scores": scores, "note": _note(said), "fallback": said.fallback}
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
    return {"rows": rows, "cols": cols, "data": data}


def _data_uri(image: Image) -> str:
    from PIL import Image as pil

    image = image.convert("L")
    if max(image.size) > IMAGE_SIDE:
        image.thumbnail((IMAGE_SIDE, IMAGE_SIDE), pil.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
