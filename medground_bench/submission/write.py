"""Writing a submission folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from medground_bench.core.errors import SubmissionError
from medground_bench.core.files import atomic_write, sha256_of
from medground_bench.submission.format import HEADER_FILE, PREDICTIONS_FILE, REQUIRED_HEADER
from medground_bench.submission.prediction import Prediction

__all__ = ["SubmissionWriter", "write_submission"]


class SubmissionWriter:
    """Write a submission row by row; it appears whole when the ``with`` block ends, or not at all.

    Other files of the folder (heat maps) are left alone. ``submission.json`` is written last, so that a folder that
    has it is complete; before other predictions replace older ones, it goes, so that it never speaks for them.

    Examples
    --------
    >>> with SubmissionWriter(folder, header) as writer:  # doctest: +SKIP
    ...     writer.add(Prediction("...", ((10, 20, 110, 220),)))
    """

    def __init__(self, folder: str | Path, header: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.header = dict(header)
        missing = [key for key in REQUIRED_HEADER if not self.header.get(key)]
        if missing:
            raise SubmissionError(
                f"the submission's header lacks {', '.join(missing)}",
                where=self.folder,
                expected=", ".join(REQUIRED_HEADER),
            )
        self._header_text = _dump(self.header, f"{self.folder}/{HEADER_FILE}", indent=2)
        self._seen: set[str] = set()
        self._digest = hashlib.sha256()

    def __enter__(self) -> SubmissionWriter:
        self._context = atomic_write(self.folder / PREDICTIONS_FILE)
        self._file = self._context.__enter__()
        return self

    def add(self, prediction: Prediction | Mapping[str, Any]) -> None:
        """Add one prediction, or a row with the keys of one.

        Raises
        ------
        SubmissionError
            If it has no id or boxes, repeats an id, or holds a number that JSON cannot (NaN, infinity).
        """
        row = prediction.to_row() if isinstance(prediction, Prediction) else dict(prediction)
        key = row.get("id")
        if not isinstance(key, str) or not key or not isinstance(row.get("boxes"), list | tuple):
            raise SubmissionError("a prediction row needs an 'id' and a list of 'boxes'", where=f"{self.folder}: {key}")
        if key in self._seen:
            raise SubmissionError("this id was already written", where=f"{self.folder}: {key}")
        self._seen.add(key)
        line = _dump(row, f"{self.folder}: {key}") + "\n"
        self._digest.update(line.encode())
        self._file.write(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._context.__exit__(kind, error, trace)
            return
        with contextlib.ExitStack() as stack:
            stack.push(self._context)
            self._file.flush()  # what a full disk stops must stop here, while the old header stands
            old = self.folder / PREDICTIONS_FILE
            if old.is_file() and sha256_of(old) != self._digest.hexdigest():
                (self.folder / HEADER_FILE).unlink(missing_ok=True)
        with atomic_write(self.folder / HEADER_FILE) as file:
            file.write(self._header_text + "\n")


def write_submission(
    folder: str | Path, header: Mapping[str, Any], predictions: Iterable[Prediction | Mapping[str, Any]]
) -> Path:
    """Write ``submission.json`` and ``predictions.jsonl`` into a folder, each whole or not at all.

    Parameters
    ----------
    folder : path
        Made if needed; what else is in it stays.
    header : mapping
        Provenance; at least ``method``, ``lvlm``, ``mode`` and ``dataset_fingerprint``.
    predictions : iterable of Prediction
        What was said of each record; rows (mappings) with the keys of a :class:`Prediction` are written as they stand.

    Raises
    ------
    SubmissionError
        If the header or a row lacks what it needs, repeats an id, or holds a number that JSON cannot.
    """
    with SubmissionWriter(folder, header) as writer:
        for prediction in predictions:
            writer.add(prediction)
    return Path(folder)


def _dump(value: dict[str, Any], where: str, indent: int | None = None) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except (TypeError, ValueError) as error:
        raise SubmissionError(f"not JSON: {error}", where=where, expected="plain numbers, texts, lists") from error
