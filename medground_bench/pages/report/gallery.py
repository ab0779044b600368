"""The records of the report's gallery: image, evidence, and what each method said."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.imaging import Letterbox, is_degenerate, resize_heatmap

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import SubmissionScores
    from medground_bench.submission import Submission

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
    """The chosen rows of a config as the page's script reads them.

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
    for row in folder.rows():
        if row["id"] not in chosen:
            continue
        key = f"{row['dataset']}/{row['image_id']}"
        if key not in images:
            images[key] = _data_uri(folder.image(row["id"]))
        predictions = {
            scores.method: _prediction(submission, *by_record[row["id"]])
            for (submission, scores), by_record in zip(judged, said, strict=True)
            if row["id"] in by_record
        }
        frame = _frame(row, judged)
        records.append(
            {
                "id": row["id"],
                "image": key,
                "lvlm": row["model"],
                **{k: row[k] for k in ("mode", "dataset", "image_id", "attribute", "question", "response")},
                "width": row["width"],
                "height": row["height"],
                "boxes": row["boxes"],
                "content": list(frame.content),
                "frame": [frame.frame_width, frame.frame_height],
                "predictions": predictions,
            }
        )
    return records


def _frame(row: Mapping[str, Any], judged: Sequence[Judged]) -> Letterbox:
    sides = [s.header.get("settings", {}).get("frame_side", 224) for s, _ in judged]
    side = next(iter(sides), 224)
    return Letterbox.fit(row["width"], row["height"], side) if side else Letterbox.identity(row["width"], row["height"])


def _by_record(
    submission: Submission, scores: SubmissionScores, ids: Sequence[str], chosen: set[str]
) -> dict[str, tuple[Mapping[str, Any], list[float]]]:
    """Record id -> prediction row and its four scores."""
    at = {ids[i]: k for k, i in enumerate(scores.rows.tolist()) if ids[i] in chosen}
    return {
        row["id"]: (row, [float(scores.scores[m][at[row["id"]]]) for m in ("iou", "f1", "precision", "recall")])
        for row in submission.rows()
        if row["id"] in at
    }


def _prediction(submission: Submission, row: Mapping[str, Any], scores: list[float]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "boxes": row["boxes"],
        "scores": scores,
        "note": _note(row),
        "fallback": bool(row.get("fallback")),
    }
    heatmap = submission.heatmap(row)
    if heatmap is not None and not is_degenerate(np.asarray(heatmap)):
        out["heat"] = _heat(np.asarray(heatmap, np.float64))
    if row.get("concept_scores"):
        out["concept"] = row.get("concept") or ""
        out["concepts"] = sorted(row["concept_scores"].items(), key=lambda item: -item[1])
    texts = (row.get("extras") or {}).get("token_texts")
    if row.get("tokens") and isinstance(texts, list) and len(texts) == len(row["tokens"]):
        out["tokens"], out["texts"] = row["tokens"], [str(t) for t in texts]
    return out


def _note(row: Mapping[str, Any]) -> str:
    if row.get("error"):
        return f"failed: {row['error']}"
    notes = [name for name in ("fallback", "degenerate") if row.get(name)]
    if not row["boxes"]:
        notes.append("no boxes")
    if row.get("concept"):
        notes.insert(0, str(row["concept"]))
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
