"""Own verdicts in the layout of the released records."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from medground_bench.core.errors import RecordsError
from medground_bench.core.schema import Mode
from medground_bench.dataset.records import join_verdicts
from medground_bench.dataset.released import read_released, write_released

if TYPE_CHECKING:
    from medground_bench.sources.base import Source

__all__ = ["export_released"]


def export_released(
    folder: str | Path, mode: Mode, sources: Mapping[str, Source], path: str | Path, *, lvlms: Collection[str] = ()
) -> int:
    """Write the kept verdicts of one mode as a file of the released layout, and read it back.

    Parameters
    ----------
    folder : path
        Folder of verdicts.
    mode : {"direct", "reason"}
        Which verdicts.
    sources : mapping of str to Source
        The sources they were made from.
    path : path
        The JSON file to write.
    lvlms : collection of str
        These LVLMs only (default all).

    Returns
    -------
    int
        Number of records written.

    Raises
    ------
    RecordsError
        If the verdicts do not fit the sources, nothing was kept, or the file does not read back equal.
    """
    records = join_verdicts(folder, mode, sources, lvlms=lvlms).records
    if not records:
        raise RecordsError(f"no candidate of mode {mode!r} was kept", where=folder, expected="at least one record")
    write_released(records, path)
    back = read_released(path, mode, allow_other=True, models={r.model for r in records})
    wrote = [
        (
            r.model,
            r.candidate.dataset,
            r.candidate.index,
            (r.response, r.prediction_edited, r.prediction_edited_kept, r.prediction_edited_kept_normal),
        )
        for r in records
    ]
    if [(e.model, e.dataset, e.index, e.predictions) for e in back.entries] != wrote:
        raise RecordsError("the file does not read back equal", where=path)
    return len(records)
