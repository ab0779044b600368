"""Reading a submission that is trusted to be valid (see :func:`validate_submission` for one that is not)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import SubmissionError
from medground_bench.imaging import Letterbox
from medground_bench.submission.checks import check_header, check_row, open_heatmap
from medground_bench.submission.format import HEADER_FILE, PREDICTIONS_FILE, TIME_LIMIT, Clock, Fault
from medground_bench.submission.prediction import Prediction
from medground_bench.submission.strict_json import JsonFault, read_object
from medground_bench.submission.validate import iter_rows

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Submission", "find_submissions", "open_submission"]


@dataclass(frozen=True)
class Submission:
    """An opened submission folder.

    Attributes
    ----------
    path : Path
        The folder.
    header : mapping
        ``submission.json``.
    seconds : float
        How long reading its rows may take.
    """

    path: Path
    header: Mapping[str, Any]
    seconds: float = TIME_LIMIT

    @property
    def settings(self) -> Mapping[str, Any]:
        """The header's settings; empty where there are none."""
        return self.header.get("settings") or {}

    @property
    def signed(self) -> bool:
        """Whether negative heat speaks against the response."""
        return self.settings.get("signed") is True

    @property
    def side(self) -> int | None:
        """Side of the square frame that its heat maps lie over; None where that is the native image."""
        side: int | None = self.settings.get("frame_side", 224)
        return side

    def letterbox(self, size: tuple[int, int]) -> Letterbox:
        """What its heat map of an image of (width, height) lies over."""
        return Letterbox.fit(*size, self.side)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of the file as they stand, in its order, streamed: unknown keys are still there.

        Raises
        ------
        SubmissionError
            At the first faulty row, or when the time is over.
        """
        clock = Clock(self.seconds)
        for line, parsed in iter_rows(self.path):
            clock.check()
            where = f"{self.path / PREDICTIONS_FILE}:{line}"
            if isinstance(parsed, Fault):
                raise SubmissionError(parsed.message, where=where, remedy=parsed.remedy)
            row = parsed.value
            if not isinstance(row, dict) or not isinstance(row.get("id"), str):
                raise SubmissionError("this row has no id", where=where, remedy="run medground-bench validate")
            for fault in check_row(row, self.path, None):
                raise SubmissionError(
                    f"{row['id']}: {fault.field}: {fault.message}", where=where, remedy="run medground-bench validate"
                )
            yield row

    def __iter__(self) -> Iterator[Prediction]:
        """The rows as predictions, streamed."""
        return map(Prediction.from_row, self.rows())

    def predictions(self) -> dict[str, Prediction]:
        """Record id -> prediction, of all rows."""
        return {prediction.id: prediction for prediction in self}

    def heatmap(self, prediction: Prediction) -> np.ndarray | None:
        """The heat map of a prediction, (h, w) over the frame; None when it has none.

        Raises
        ------
        MedGroundError
            If the file leaves the folder or is not a 2-D array.
        """
        return open_heatmap(self.path, prediction.heatmap) if prediction.heatmap else None

    def digest(self) -> str:
        """``"sha256:..."`` of ``predictions.jsonl``: what exactly was scored."""
        sha = hashlib.sha256()
        with open(self.path / PREDICTIONS_FILE, "rb") as file:
            while chunk := file.read(1 << 20):
                sha.update(chunk)
        return f"sha256:{sha.hexdigest()}"


def find_submissions(places: Iterable[str | Path]) -> list[Path]:
    """The submission folders that are meant by paths.

    Parameters
    ----------
    places : iterable of path
        Submission folders, one of their two files, or folders that hold submissions at any depth (hidden folders and
        symbolic links are not looked into).

    Returns
    -------
    list of Path
        In the order given, those of one parent in path order, each once.

    Raises
    ------
    SubmissionError
        If a path does not exist or holds no submission.
    """
    found: dict[Path, Path] = {}
    for place in map(Path, places):
        folder = place.parent if place.name in (HEADER_FILE, PREDICTIONS_FILE) and place.is_file() else place
        expected = f"a folder with {HEADER_FILE} and {PREDICTIONS_FILE}, or a folder of such folders"
        if not folder.is_dir():
            what = "this is a file" if folder.exists() else "there is no such folder"
            raise SubmissionError(what, where=place, expected=expected)
        mine = list(_submissions_below(folder))
        if not mine:
            raise SubmissionError(
                "no submission here",
                where=place,
                expected=expected,
                remedy="'medground-bench generate' writes submissions"
                if not (folder / "build.json").is_file()
                else "this is a dataset folder: give it as --dataset",
            )
        for one in mine:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _submissions_below(folder: Path) -> Iterator[Path]:
    """Folders with either file of a submission, in path order; a submission holds no other."""
    for root, folders, files in os.walk(folder):
        if HEADER_FILE in files or PREDICTIONS_FILE in files:
            folders.clear()
            yield Path(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def open_submission(folder: str | Path) -> Submission:
    """Open a submission folder and read its header.

    Raises
    ------
    SubmissionError
        If a file is missing or the header is malformed.
    """
    folder = Path(folder)
    for name in (HEADER_FILE, PREDICTIONS_FILE):
        if not (folder / name).is_file():
            raise SubmissionError(
                f"no {name} here", where=folder, expected=f"a folder with {HEADER_FILE} and {PREDICTIONS_FILE}"
            )
    try:
        parsed = read_object(folder / HEADER_FILE)
    except JsonFault as error:
        raise SubmissionError(error.message, where=folder / HEADER_FILE, remedy=error.remedy) from None
    if parsed.has_constants or parsed.has_surrogates:
        raise SubmissionError("a number or text that is no JSON", where=folder / HEADER_FILE, remedy="leave it out")
    header = parsed.value
    for fault in check_header(header)[0]:
        field = fault.field or "header"
        raise SubmissionError(f"{field} {fault.message}", where=folder / HEADER_FILE, remedy=fault.remedy)
    return Submission(folder, header)
