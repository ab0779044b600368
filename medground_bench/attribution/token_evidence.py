"""Which tokens of a response rest on the finding: how much less likely each is once the finding is gone.

The reference that token scores are judged by. For every record an editor removes the finding inside the evidence
boxes, as the causal filter does, and the record's response is scored on both images by teacher forcing. The drops are
one line per record in a folder, from which an interrupted run resumes; exact counterfactuals (``phantom``, ``planted``)
make an exact reference.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.causal.editors import EditRequest
from medground_bench.core.errors import MedGroundError, MethodError, ScoringError
from medground_bench.core.files import Journal, read_journals
from medground_bench.core.settings import same_as_before

if TYPE_CHECKING:
    from medground_bench.causal.editors import Editor
    from medground_bench.core.schema import Candidate
    from medground_bench.dataset.columns import Record
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.lvlm import Lvlm
    from medground_bench.sources import Source

__all__ = ["TokenEvidence", "find_token_evidence", "read_token_evidence"]

_HEADER = "token-evidence.json"
_STEM = "token-evidence"


@dataclass(frozen=True)
class TokenEvidence:
    """The drops of the tokens of records.

    Attributes
    ----------
    header : mapping
        What they were made with: LVLM, dataset, editor, side of the frame.
    drops : mapping of str to ndarray, (T,)
        Record id -> log-probability of every response token on the image less that without the finding, nats.
    """

    header: Mapping[str, Any]
    drops: Mapping[str, np.ndarray]


def find_token_evidence(
    records: DatasetFolder,
    lvlm: Lvlm,
    editor: Editor,
    sources: Sequence[Source],
    out: str | Path,
    *,
    side: int | None = 224,
    limit: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> TokenEvidence:
    """Score every record's response with and without the finding, and keep the drops in a folder.

    Parameters
    ----------
    records : DatasetFolder
        An opened config; only the records of ``lvlm.key`` are used.
    lvlm : Lvlm
        The model that gave the responses.
    editor : Editor
        Removes the finding.
    sources : sequence of Source
        Of the records' images: exact editors know an image by its candidate.
    out : path
        A folder; what it holds from an earlier run with the same settings is not made again.
    side : int or None
        Side of the letterboxed frame in pixels; None feeds the native image.
    limit : int, optional
        Only the first records.
    seed : int
        Of the editor.
    progress : callable, optional
        Called with (done, all, record id).

    Raises
    ------
    MedGroundError
        If no record is the LVLM's, or the folder was made with other settings.
    EditorError
        If the editor fails on a record.
    """
    rows = [record for record in records if record.model == lvlm.key][:limit]
    if not rows:
        raise MethodError(f"the dataset has no record of LVLM {lvlm.key!r}", where=records.path)
    out = Path(out)
    header = {
        "kind": "medground-bench token evidence",
        "lvlm": lvlm.key,
        "lvlm_revision": lvlm.revision,
        "mode": rows[0].mode,
        "dataset_fingerprint": records.fingerprint,
        "editor": dict(editor.settings),
        "frame_side": side,
        "seed": seed,
    }
    same_as_before("the token evidence here", out / _HEADER, header)
    candidates = {(s.name, c.image_id): c for s in sources for c in s}
    with Journal(out, _STEM) as journal:
        done = {entry["id"] for entry in read_journals(out, _STEM)}
        for k, record in enumerate(rows):
            if progress is not None:
                progress(k, len(rows), record.id)
            if record.id not in done:
                drops = _drops(record, lvlm, editor, candidates, side, seed)
                journal.append({"id": record.id, "drops": [round(float(v), 5) for v in drops]})
    if progress is not None:
        progress(len(rows), len(rows), "done")
    return read_token_evidence(out)


def _drops(
    record: Record,
    lvlm: Lvlm,
    editor: Editor,
    candidates: Mapping[tuple[str, str], Candidate],
    side: int | None,
    seed: int,
) -> np.ndarray:
    image = record.image
    candidate = candidates.get((record.dataset, record.image_id))
    if candidate is not None:
        editor.bind(candidate, image)
    mask = np.zeros((record.height, record.width), bool)
    for x1, y1, x2, y2 in record.boxes:
        mask[int(np.floor(y1)) : int(np.ceil(y2)), int(np.floor(x1)) : int(np.ceil(x2))] = True
    (edited,) = editor.edit_batch([EditRequest(image, mask, f"No {record.attribute}", seed)])
    if isinstance(edited, MedGroundError):
        raise edited
    episode = lvlm.prepare(image, record.question, record.response or "", side=side)
    changed = np.asarray(episode.letterbox.apply(edited).convert(episode.frame.mode))
    scores = np.asarray(lvlm.log_probs(episode, [episode.frame_array, changed]), np.float64)
    drops: np.ndarray = scores[0] - scores[1]
    return drops


def read_token_evidence(folder: str | Path) -> TokenEvidence:
    """Read a folder of :func:`find_token_evidence`.

    Raises
    ------
    ScoringError
        If it is none, or damaged.
    """
    path = Path(folder) / _HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        drops = {str(e["id"]): np.array(e["drops"], np.float64) for e in read_journals(folder, _STEM)}
        if header["kind"] != "medground-bench token evidence" or any(v.ndim != 1 for v in drops.values()):
            raise ValueError("another kind of file")
    except OSError as error:
        raise ScoringError(
            f"cannot be read: {error.strerror}", where=path, remedy="run medground-bench tokens"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ScoringError(f"not token evidence ({error})", where=path, remedy="run medground-bench tokens") from error
    return TokenEvidence(header, drops)
