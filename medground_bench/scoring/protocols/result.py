"""What a protocol found on a submission: numbers per record, their means with intervals, and the file that holds them.

A file is one JSON object::

    {"kind": "medground-bench protocol", "format": 1, "protocol": ..., "asks": ..., "note": ..., "settings": {...},
     "submission": {"method": ..., "lvlm": ..., "mode": ..., "kind": "method" or "control"},
     "predictions": "sha256:...", "dataset": fingerprint, "lvlm": {"revision": ..., "dtype": ...},
     "versions": {...}, "created": ..., "count": {"passes": ..., "found": ..., "runs": ...},
     "measures": [{"name", "title", "better", "chance", "bounds"}, ...],
     "records": {"id": [...], "cluster": [...]}, "values": {measure: [...]},
     "skipped": {reason: how many records}, "aggregates": [...], "tables": [{"title", "rows"}, ...]}

``cluster`` numbers patients; no patient identifier is in the file. A number that does not exist is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.core.files import atomic_write
from medground_bench.scoring.aggregate import Aggregate, Quotient, aggregate
from medground_bench.scoring.protocols.protocol import Measure, Table

if TYPE_CHECKING:
    from medground_bench.scoring.table import RecordTable

__all__ = [
    "ProtocolResult",
    "ProtocolSummary",
    "aggregate_values",
    "joined_notes",
    "measure_quotient",
    "read_result",
    "read_results",
    "write_result",
]

KIND = "medground-bench protocol"
FORMAT = 1

_LEVELS = ("all", "dataset", "attribute")


@dataclass(frozen=True)
class ProtocolSummary:
    """What a score file keeps of a protocol on a submission: means by group, nothing of single records.

    The attributes are those of :class:`ProtocolResult`.
    """

    protocol: str
    asks: str
    note: str
    measures: tuple[Measure, ...]
    aggregates: list[Aggregate]
    skipped: dict[str, int] = field(default_factory=dict)

    def find(self, level: str = "all", group: str = "") -> Aggregate | None:
        """The numbers of a group of records; None where there is none."""
        return next((a for a in self.aggregates if a.level == level and a.group == group), None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "asks": self.asks,
            "note": self.note,
            "measures": [_measure(m) for m in self.measures],
            "aggregates": [a.to_json() for a in self.aggregates],
            "skipped": self.skipped,
        }

    @classmethod
    def from_json(cls, protocol: str, data: Mapping[str, Any]) -> ProtocolSummary:
        """The inverse of :meth:`to_json`."""
        return cls(
            protocol,
            str(data["asks"]),
            str(data["note"]),
            tuple(map(_as_measure, data["measures"])),
            [Aggregate.from_json(a) for a in data["aggregates"]],
            {str(k): int(v) for k, v in data["skipped"].items()},
        )


def _measure(measure: Measure) -> dict[str, Any]:
    bounds = [end if math.isfinite(end) else None for end in measure.bounds]
    return {
        "name": measure.name,
        "title": measure.title,
        "better": measure.better,
        "chance": measure.chance,
        "bounds": bounds,
    }


def _as_measure(data: Mapping[str, Any]) -> Measure:
    if data["better"] not in ("high", "low", "") or not isinstance(data["chance"], str | int | float | None):
        raise ValueError("a measure that is none")
    low, high = data.get("bounds", (None, None))
    bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    return Measure(str(data["name"]), str(data["title"]), data["better"], bounds, data["chance"])


@dataclass(frozen=True)
class ProtocolResult:
    """What a protocol found on one submission (see the module's docstring).

    Attributes
    ----------
    protocol, asks : str
        Name of the protocol and its question.
    method, lvlm, mode, kind : str
        Whose submission it is.
    predictions, dataset : str
        Digest of the predictions, fingerprint of the dataset.
    measures : tuple of Measure
        The numbers, the one to read first in front.
    ids : list of str
        The records.
    clusters : ndarray of int, shape (n,)
        Their patients.
    values : dict of str to ndarray, shape (n,)
        Numbers per record, NaN where one does not exist.
    skipped : dict of str to int
        Reason -> how many records the protocol does not apply to.
    aggregates : list of Aggregate
        Means by group, with intervals.
    tables : list of Table
        What the protocol says over all records.
    count : dict of str to int
        Passes made and found in the cache, and runs of the method.
    settings, provenance : mapping
        Of the protocol; and what else made the numbers.
    note : str
        What a reader must know.
    """

    protocol: str
    asks: str
    method: str
    lvlm: str
    mode: str
    kind: str
    predictions: str
    dataset: str
    measures: tuple[Measure, ...]
    ids: list[str]
    clusters: np.ndarray
    values: dict[str, np.ndarray]
    skipped: dict[str, int]
    aggregates: list[Aggregate]
    tables: list[Table] = field(default_factory=list)
    count: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def find(self, level: str = "all", group: str = "") -> Aggregate | None:
        """The numbers of a group of records; None where there is none."""
        return next((a for a in self.aggregates if a.level == level and a.group == group), None)

    def summary(self) -> ProtocolSummary:
        """What a score file keeps of it."""
        return ProtocolSummary(self.protocol, self.asks, self.note, self.measures, self.aggregates, self.skipped)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "protocol": self.protocol,
            "asks": self.asks,
            "note": self.note,
            "settings": dict(self.settings),
            "submission": {"method": self.method, "lvlm": self.lvlm, "mode": self.mode, "kind": self.kind},
            "predictions": self.predictions,
            "dataset": self.dataset,
            **self.provenance,
            "count": dict(self.count),
            "measures": [_measure(m) for m in self.measures],
            "records": {"id": self.ids, "cluster": self.clusters.tolist()},
            "values": {k: [v if math.isfinite(v) else None for v in c.tolist()] for k, c in self.values.items()},
            "skipped": self.skipped,
            "aggregates": [a.to_json() for a in self.aggregates],
            "tables": [{"title": t.title, "rows": [_plain(row) for row in t.rows]} for t in self.tables],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProtocolResult:
        """The inverse of :meth:`to_json`; bounds of measures are not kept."""
        who = data["submission"]
        ids = [str(i) for i in data["records"]["id"]]
        values = {
            str(k): np.array([math.nan if v is None else float(v) for v in column], np.float64)
            for k, column in data["values"].items()
        }
        clusters = np.array(data["records"]["cluster"], np.int64)
        if len(clusters) != len(ids) or any(len(column) != len(ids) for column in values.values()):
            raise ValueError("columns of different lengths")
        return cls(
            protocol=str(data["protocol"]),
            asks=str(data["asks"]),
            method=str(who["method"]),
            lvlm=str(who["lvlm"]),
            mode=str(who["mode"]),
            kind=str(who["kind"]),
            predictions=str(data["predictions"]),
            dataset=str(data["dataset"]),
            measures=tuple(map(_as_measure, data["measures"])),
            ids=ids,
            clusters=clusters,
            values=values,
            skipped={str(k): int(v) for k, v in data["skipped"].items()},
            aggregates=[Aggregate.from_json(a) for a in data["aggregates"]],
            tables=[Table(str(t["title"]), [dict(row) for row in t["rows"]]) for t in data["tables"]],
            count={str(k): int(v) for k, v in data["count"].items()},
            settings=dict(data["settings"]),
            note=str(data["note"]),
            provenance={k: data[k] for k in ("lvlm", "versions", "created") if k in data},
        )


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, np.generic):
            value = value.item()
        out[key] = None if isinstance(value, float) and not math.isfinite(value) else value
    return out


def aggregate_values(
    measures: Iterable[Measure],
    values: Mapping[str, np.ndarray],
    table: RecordTable,
    *,
    levels: Sequence[str] = _LEVELS,
    resamples: int,
    seed: int = 0,
) -> list[Aggregate]:
    """Means of every measure over the records that have it, by group, with intervals over patients."""
    quotients = {}
    for measure in measures:
        column = values.get(measure.name)
        if column is None or np.isnan(column).all():
            continue
        quotients[measure.name] = measure_quotient(measure, column)
    if not quotients:
        return []
    return aggregate(quotients, table, levels, resamples=resamples, seed=seed)


def measure_quotient(measure: Measure, column: np.ndarray) -> Quotient:
    """The mean of a measure over the records that have it (not NaN)."""
    there = ~np.isnan(column)
    return Quotient(np.where(there, column, 0.0), there.astype(np.float64), measure.bounds)


def write_result(result: ProtocolResult, path: str | Path) -> Path:
    """Write a result, whole or not at all."""
    with atomic_write(path) as file:
        json.dump(result.to_json(), file, allow_nan=False, separators=(",", ":"))
        file.write("\n")
    return Path(path)


def read_result(path: str | Path) -> ProtocolResult:
    """Read a result.

    Raises
    ------
    ScoringError
        If the file is missing, is not one, or is damaged.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScoringError(f"cannot be read: {error.strerror}", where=path) from error
    except (ValueError, RecursionError) as error:
        raise ScoringError("not JSON", where=path, expected="a file written by medground-bench evaluate") from error
    if not isinstance(data, dict) or data.get("kind") != KIND or data.get("format") != FORMAT:
        raise ScoringError(
            "not the result of a protocol", where=path, expected=f"a file of medground-bench evaluate, format {FORMAT}"
        )
    try:
        return ProtocolResult.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ScoringError(
            f"damaged ({type(error).__name__}: {error})", where=path, remedy="delete it and evaluate again"
        ) from error


def read_results(folder: str | Path) -> list[ProtocolResult]:
    """All results below a folder that ``medground-bench evaluate`` wrote, by LVLM, method and protocol.

    Raises
    ------
    ScoringError
        If there is none, or one cannot be read.
    """
    folder = Path(folder)
    paths = [p for p in sorted(folder.rglob("*.json")) if not any(part.startswith(".") for part in _below(p, folder))]
    results = [read_result(path) for path in paths]
    if not results:
        raise ScoringError(
            "no results of protocols here", where=folder, remedy="run medground-bench evaluate with --out here"
        )
    return sorted(results, key=lambda r: (r.lvlm, r.mode, r.method, r.protocol))


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def joined_notes(notes: Iterable[str]) -> str:
    """What notes of one protocol on several submissions say, each once."""
    found = list(dict.fromkeys(filter(None, notes)))
    return " ".join(one for one in found if not any(one != other and one in other for other in found))


def describe(parameters: Any) -> dict[str, Any]:
    """A protocol's parameters as plain JSON."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(parameters)))
    return plain
