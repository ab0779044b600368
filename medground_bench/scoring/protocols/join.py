"""Results of protocols beside the scores of the same submissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medground_bench.scoring.files import ScoreFile
    from medground_bench.scoring.protocols.result import ProtocolResult

__all__ = ["join_protocols"]


def join_protocols(scores: ScoreFile, results: Iterable[ProtocolResult]) -> list[str]:
    """Put results into the score file of the same predictions on the same dataset.

    The measure in front also comes into the scores of the records, as ``"protocol.measure"`` with NaN where it was not
    taken, so that it can be pooled over LVLMs.

    Parameters
    ----------
    scores : ScoreFile
        Changed in place; a protocol that is there already is replaced.
    results : iterable of ProtocolResult
        From :func:`~medground_bench.scoring.protocols.result.read_results`.

    Returns
    -------
    list of str
        One line for every result that belongs to no submission of the file.
    """
    known = {(one.predictions, one.method, one.lvlm, one.mode): one for one in scores.submissions}
    left = []
    for result in results:
        one = known.get((result.predictions, result.method, result.lvlm, result.mode))
        if one is None or result.dataset != scores.fingerprint:
            left.append(f"{result.protocol} on {result.method} for {result.lvlm}: its predictions are not among these")
        else:
            one.protocols[result.protocol] = result.summary()
            front = result.measures[0].name if result.measures else ""
            if front in result.values:
                values = dict(zip(result.ids, result.values[front].tolist(), strict=True))
                ids = scores.table.id[one.positions].tolist()
                one.scores[f"{result.protocol}.{front}"] = np.array([values.get(key, np.nan) for key in ids])
    return left
