"""What a board shows and keeps of scores, who may send how much to it, and whose a name is.

Means over records give the evidence away to whoever may ask often enough: change one box, and see what the mean does.
What is shown is therefore rounded and of groups of records only (:func:`public_scores`), and nobody may ask often
(:class:`Register`).
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.files import atomic_write, file_lock
from medground_bench.pages.leaderboard.archive import UploadError
from medground_bench.pages.leaderboard.names import skeleton
from medground_bench.scoring import Interval, ScoreFile

if TYPE_CHECKING:
    from medground_bench.scoring.aggregate import Aggregate

__all__ = ["DECIMALS", "MIN_RECORDS", "QUOTA", "Register", "public_scores"]

DECIMALS = 2
"""Decimals of everything that a board shows or keeps."""

MIN_RECORDS = 20
"""Smallest group of records that is shown."""

QUOTA = 20
"""Submissions of one account a day."""

REGISTER_FILE = ".register"


def public_scores(scores: ScoreFile, *, min_records: int = MIN_RECORDS, decimals: int = DECIMALS) -> ScoreFile:
    """Scores as a board may show and keep them: rounded means of large groups, and nothing of single records.

    Of the levels, all records and datasets stay: findings and sizes of evidence are what is asked for.
    """
    nothing = np.empty(0, np.int64)

    def kept(aggregates: list[Aggregate]) -> list[Aggregate]:
        large = (a for a in aggregates if a.records >= min_records and a.level in ("all", "dataset"))
        return [
            replace(a, values={k: _rounded(v, decimals) for k, v in a.values.items()}, p_chance=round(a.p_chance, 2))
            for a in large
        ]

    return replace(
        scores,
        table=scores.table.take(nothing),
        chance={},
        bounds={},
        evidence_places=None,
        area_places=None,
        submissions=[
            replace(
                one,
                positions=nothing,
                scores={},
                aggregates=kept(one.aggregates),
                chance_aggregates={row: kept(found) for row, found in one.chance_aggregates.items()},
                places=None,
                bounds={},
                bound_aggregates={row: kept(found) for row, found in one.bound_aggregates.items()},
                protocols={
                    name: replace(found, aggregates=kept(found.aggregates), skipped={})
                    for name, found in one.protocols.items()
                },
            )
            for one in scores.submissions
        ],
    )


def _rounded(interval: Interval, decimals: int) -> Interval:
    return Interval(*(round(float(v), decimals) if math.isfinite(v) else v for v in interval))


@dataclass
class Register:
    """Which account has sent how much today, and whose the names are; kept in the results folder.

    Accounts are kept as keyed hashes only.

    Attributes
    ----------
    results : Path
        The results folder.
    quota : int
        Submissions of one account a day.
    """

    results: Path
    quota: int = QUOTA
    _today: str = field(default="", init=False)

    def count(self, account: str) -> None:
        """Count one submission of an account.

        Raises
        ------
        UploadError
            If the account has sent its share today.
        """
        with self._open() as data:
            today = datetime.now(timezone.utc).date().isoformat()
            counts = data["days"].setdefault(today, {})
            data["days"] = {today: counts}
            who = _hashed(account, data["salt"])
            if counts.get(who, 0) >= self.quota:
                raise UploadError(
                    f"{self.quota} submissions a day are the most from one account", remedy="send it again tomorrow"
                )
            counts[who] = counts.get(who, 0) + 1

    def require_owner(self, name: str, account: str) -> None:
        """Check that a name is nobody else's (see :meth:`claim`).

        Raises
        ------
        UploadError
            If it, or a name that looks like it, was first sent by another account.
        """
        with self._open() as data:
            _require_owner(data, name, account)

    def claim(self, name: str, account: str) -> None:
        """Give a name to an account.

        Raises
        ------
        UploadError
            If it has become another's.
        """
        with self._open() as data:
            _require_owner(data, name, account)
            data["names"].setdefault(skeleton(name), _hashed(account, data["salt"]))

    @contextmanager
    def _open(self) -> Iterator[dict[str, Any]]:
        """The register, locked; written back at the end unless something was refused."""
        self.results.mkdir(parents=True, exist_ok=True)
        path = self.results / REGISTER_FILE
        with file_lock(self.results / ".register.lock", wait=True):
            try:
                data = json.loads(path.read_text(encoding="utf-8"))
            except FileNotFoundError:
                data = {"salt": secrets.token_hex(16), "days": {}, "names": {}}
            before = json.dumps(data)
            yield data
            if json.dumps(data) != before:
                with atomic_write(path, permissions=0o600) as file:
                    json.dump(data, file)


def _require_owner(data: dict[str, Any], name: str, account: str) -> None:
    owner = data["names"].get(skeleton(name))
    if owner is not None and owner != _hashed(account, data["salt"]):
        raise UploadError(
            f"the method name {name!r}, or one that looks like it, belongs to who sent it first",
            remedy="choose another name, or send it from the account or with the key it was first sent with",
        )


def _hashed(account: str, salt: str) -> str:
    return hashlib.sha256(f"{salt}\0{account}".encode()).hexdigest()[:32]
