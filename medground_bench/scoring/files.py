"""``scores.json``: scores per record, aggregates and provenance of one or more submissions.

The file is one JSON object::

    {"kind": "medground-bench scores", "format": 3, "created": ..., "versions": {...},
     "dataset": {"config": ..., "fingerprint": ..., "records": n in the config},
     "settings": {"resamples": ..., "confidence": ..., "seed": ..., "tolerance": ...},
     "records": {"id": [...], "dataset": [...], "lvlm": [...], "mode": [...], "attribute": [...],
                 "cluster": [...], "evidence_fraction": [...], "size": [...]},
     "anatomy": {"places": [...], "evidence": [[share, ...] or null, ...], "area": [...]},
     "chance": {"whole_image": {"iou": [...], ...}, "random_box": ..., "centre_prior": ...},
     "bounds": {"token_grid 8x8 224": {"iou": [...], ...}, "tiles 8x8 224": ..., "pixels 224": ...},
     "submissions": [{"provenance": submission.json, "predictions": "sha256:...", "warnings": [...],
                      "rows": [positions in records], "scores": {"iou": [...], ...},
                      "aggregates": [...], "chance_aggregates": {"whole_image": [...], ...},
                      "bounds": {"token_grid": "token_grid 8x8 224", ...}, "own_ceiling": "token_grid",
                      "bound_aggregates": {"token_grid": [...], ...},
                      "places": {"of": "map" or "boxes", "shares": [[share, ...] or null, ...]},
                      "protocols": {"necessity": {"asks": ..., "measures": [...], "aggregates": [...], ...}, ...}}]}

Columns of ``records``, ``chance`` and ``bounds`` are parallel; those of a submission's ``scores`` are parallel to its
``rows``. Scores are fractions; null where a number does not exist. ``cluster`` numbers patients in dataset order; no
patient identifier is in the file. An aggregate has ``records``, ``clusters`` (patients), ``values`` {metric: [value,
low, high]}, ``best_chance`` and ``p_chance``; low and high are both null where there is no interval (fewer than six
patients), one of them where the data do not bound that end.

``bounds`` are ceilings and second annotators (:data:`~medground_bench.scoring.ceiling.BOUND_ROWS`), null for records
that have none. A submission says which of these columns are its own, since grid and frame are those of its LVLM, and
which ceiling the space has that its method speaks in (empty where it is not known).

``anatomy`` and ``places`` (share of evidence, image and attribution in every place of the chest, see
:mod:`~medground_bench.scoring.places`) are there if the anatomy of some image was known when it was scored.

Format 2 is refused since it has no ceilings, format 1 (version 0.1.0) since its intervals were too narrow for few
patients and its evidence was not cut to the image. Submissions of 0.1.0 are read, so that they can be scored again.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.core.files import atomic_write
from medground_bench.imaging.overlap import BoxScores
from medground_bench.scoring.aggregate import Aggregate
from medground_bench.scoring.ceiling import BOUND_ROWS
from medground_bench.scoring.places import PLACES
from medground_bench.scoring.protocols.result import ProtocolSummary
from medground_bench.scoring.table import RecordTable
from medground_bench.submission import HEADER_FILE

__all__ = ["ScoreFile", "SubmissionScores", "find_scores", "read_scores", "write_scores"]

_AT_ONCE = 1 << 14
KIND = "medground-bench scores"
FORMAT = 3

_TEXT = ("id", "dataset", "lvlm", "mode", "attribute", "size")


@dataclass(frozen=True)
class SubmissionScores:
    """Scores of one submission.

    Attributes
    ----------
    provenance : mapping
        Its ``submission.json``.
    predictions : str
        ``"sha256:..."`` of the predictions that were scored.
    positions : ndarray of int, shape (n,)
        Of its records in the file's table.
    scores : dict of str to ndarray, shape (n,)
        ``iou``, ``precision``, ``recall``, ``f1``, ``answered``, ``fallback``, ``degenerate``,
        ``predicted_fraction``, ``area_ratio``, ``precision_lift`` and, with heat maps, ``pointing``, ``energy``,
        ``auprc``, ``auprc_chance``, and what is said of concepts and tokens
        (:data:`~medground_bench.scoring.concepts.CONCEPT_METRICS`, ``token_auroc``); NaN where a number does not exist.
    aggregates : list of Aggregate
        Its numbers by group.
    chance_aggregates : dict of str to list of Aggregate
        Those of the chance rows over the same records.
    bounds : dict of str to str
        Ceilings and second annotator -> key of the file's ``bounds``.
    bound_aggregates : dict of str to list of Aggregate
        Their numbers by group.
    own_ceiling : str
        The ceiling of the method's output space; empty where it is not known.
    warnings : list of str
        What the validation warned of.
    protocols : dict of str to ProtocolSummary
        What protocols found on it, where ``medground-bench evaluate`` was run.
    places : ndarray, shape (n, places), or None
        Share of its heat, or of its boxes' area, in every place of :data:`~medground_bench.scoring.places.PLACES`; NaN
        where the anatomy is not known or nothing is named; None where no anatomy was known.
    places_of : str
        Whether these are of its ``map`` or its ``boxes``.
    """

    provenance: Mapping[str, Any]
    predictions: str
    positions: np.ndarray
    scores: dict[str, np.ndarray]
    aggregates: list[Aggregate]
    chance_aggregates: dict[str, list[Aggregate]]
    warnings: list[str] = field(default_factory=list)
    bounds: dict[str, str] = field(default_factory=dict)
    bound_aggregates: dict[str, list[Aggregate]] = field(default_factory=dict)
    own_ceiling: str = ""
    protocols: dict[str, ProtocolSummary] = field(default_factory=dict)
    places: np.ndarray | None = None
    places_of: str = "boxes"

    @property
    def method(self) -> str:
        """The method, with what served its LVLM where that was a server: the two never share a line of a table."""
        settings = self.provenance.get("settings")
        backend = settings.get("backend") if isinstance(settings, Mapping) else None
        name = backend.get("name") if isinstance(backend, Mapping) else None
        served = f" [{name}]" if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,20}", name) else ""
        return f"{self.provenance['method']}{served}"

    @property
    def kind(self) -> str:
        """``control`` where its settings say that the method is one, else ``method``."""
        settings = self.provenance.get("settings")
        return "control" if isinstance(settings, Mapping) and settings.get("control") is True else "method"

    @property
    def lvlm(self) -> str:
        return str(self.provenance["lvlm"])

    @property
    def cost(self) -> dict[str, float]:
        """What its header says of a record's mean cost: ``forward``, ``backward`` and ``seconds``; empty if nothing."""
        said = self.provenance.get("cost")
        if not isinstance(said, Mapping):
            return {}
        found = ((name, said.get(name)) for name in ("forward", "backward", "seconds"))
        return {name: float(v) for name, v in found if isinstance(v, int | float) and 0 <= v < 1e12}

    @property
    def mode(self) -> str:
        return str(self.provenance["mode"])

    def find(
        self, level: str = "all", group: str = "", chance: str | None = None, *, bound: str | None = None
    ) -> Aggregate | None:
        """The aggregate of a group, of the submission, of a chance row or of a ceiling; None when there is none."""
        if bound is not None:
            candidates = self.bound_aggregates.get(bound, [])
        else:
            candidates = self.aggregates if chance is None else self.chance_aggregates[chance]
        return next((a for a in candidates if a.level == level and a.group == group), None)


@dataclass(frozen=True)
class ScoreFile:
    """The content of a ``scores.json`` (see the module's docstring).

    ``evidence_places`` and ``area_places``, (records, places), are NaN for records whose anatomy is not known, and None
    where no anatomy was.
    """

    config: str
    fingerprint: str
    dataset_records: int
    table: RecordTable
    chance: Mapping[str, BoxScores]
    submissions: list[SubmissionScores]
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    bounds: Mapping[str, BoxScores] = field(default_factory=dict)
    path: str = ""
    evidence_places: np.ndarray | None = None
    area_places: np.ndarray | None = None

    def require_records(self) -> None:
        """Check that there are scores of single records.

        Raises
        ------
        ScoringError
            If it is a leaderboard's own file, which has means only.
        """
        if not len(self.table):
            raise ScoringError(
                "this score file has no scores of single records",
                where=self.path or None,
                expected="a file written by medground-bench score; a leaderboard keeps rounded means only",
            )


def write_scores(scores: ScoreFile, path: str | Path) -> Path:
    """Write a score file, whole or not at all."""
    table = {name: getattr(scores.table, name) for name in scores.table.__dataclass_fields__}
    data = {
        "kind": KIND,
        "format": FORMAT,
        "created": scores.created,
        "versions": dict(scores.versions),
        "dataset": {
            "config": scores.config,
            "fingerprint": scores.fingerprint,
            "records": scores.dataset_records,
        },
        "settings": dict(scores.settings),
        "records": table,
        "chance": {row: s._asdict() for row, s in scores.chance.items()},
        "bounds": {key: s._asdict() for key, s in scores.bounds.items()},
        **_anatomy_json(scores),
        "submissions": [
            {
                "provenance": dict(s.provenance),
                "predictions": s.predictions,
                "warnings": s.warnings,
                "rows": s.positions,
                "scores": s.scores,
                "aggregates": [a.to_json() for a in s.aggregates],
                "chance_aggregates": {k: [a.to_json() for a in v] for k, v in s.chance_aggregates.items()},
                "bounds": s.bounds,
                "own_ceiling": s.own_ceiling,
                **({} if s.places is None else {"places": {"of": s.places_of, "shares": _shares_json(s.places)}}),
                **({"protocols": {k: v.to_json() for k, v in s.protocols.items()}} if s.protocols else {}),
                "bound_aggregates": {k: [a.to_json() for a in v] for k, v in s.bound_aggregates.items()},
            }
            for s in scores.submissions
        ],
    }
    with atomic_write(path) as file:
        _dump(data, file)
        file.write("\n")
    return Path(path)


def _anatomy_json(scores: ScoreFile) -> dict[str, Any]:
    if scores.evidence_places is None or scores.area_places is None:
        return {}
    shares = {"evidence": _shares_json(scores.evidence_places), "area": _shares_json(scores.area_places)}
    return {"anatomy": {"places": list(PLACES), **shares}}


def _shares_json(shares: np.ndarray) -> list[list[float] | None]:
    return [None if np.isnan(row).any() else [round(v, 5) for v in row.tolist()] for row in shares]


def _shares(rows: list[list[float] | None], n: int) -> np.ndarray:
    out = np.array([[np.nan] * len(PLACES) if row is None else row for row in rows], np.float64)
    if out.shape != (n, len(PLACES)):
        raise ValueError("shares of places that do not fit")
    return out


def _dump(value: Any, file: IO[str]) -> None:
    """Write JSON; columns (arrays) a piece at a time, as lists, NaN as null."""
    if isinstance(value, np.ndarray):
        file.write("[")
        for lo in range(0, len(value), _AT_ONCE):
            part = value[lo : lo + _AT_ONCE]
            file.write(("," if lo else "") + _json(_list(part) if part.dtype.kind == "f" else part.tolist())[1:-1])
        file.write("]")
    elif isinstance(value, dict) and any(isinstance(item, dict | list | np.ndarray) for item in value.values()):
        file.write("{")
        for k, (key, item) in enumerate(value.items()):
            file.write(("," if k else "") + _json(str(key)) + ":")
            _dump(item, file)
        file.write("}")
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        file.write("[")
        for k, item in enumerate(value):
            file.write("," if k else "")
            _dump(item, file)
        file.write("]")
    else:
        file.write(_json(value))


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def find_scores(places: Iterable[str | Path]) -> list[Path]:
    """The score files that are meant by paths.

    Parameters
    ----------
    places : iterable of path
        Score files, or folders that hold some at any depth (hidden folders and symbolic links are not looked into;
        ``.json`` files of another kind are passed over).

    Returns
    -------
    list of Path
        In the order given, those of one folder in path order, each once.

    Raises
    ------
    ScoringError
        If a path does not exist, or a folder holds no score file.
    """
    found: dict[Path, Path] = {}
    for place in map(Path, places):
        if not place.exists():
            raise ScoringError(
                "there is no such file or folder", where=place, expected="a score file, or a folder of some"
            )
        mine = [place] if place.is_file() else list(_score_files_below(place))
        if not mine:
            submissions = any(HEADER_FILE in files for _, _, files in os.walk(place))
            raise ScoringError(
                "no score file here" + (", but submissions" if submissions else ""),
                where=place,
                expected="score files, or a folder that holds some",
                remedy="score submissions first: medground-bench score SUBMISSION --dataset DATASET --out scores.json",
            )
        for one in mine:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _score_files_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root) / name
            if path.suffix == ".json" and not name.startswith(".") and not path.is_symlink():
                with open(path, "rb") as file:
                    if KIND.encode() in file.read(200):
                        yield path


def read_scores(path: str | Path) -> ScoreFile:
    """Read a ``scores.json``.

    Raises
    ------
    ScoringError
        If the file is missing, is not one, or is of another format.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScoringError(
            f"cannot be read: {error.strerror}", where=path, remedy="run medground-bench score"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ScoringError("not JSON", where=path, expected="a file written by medground-bench score") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise ScoringError("not a score file", where=path, expected="a file written by medground-bench score")
    if data.get("format") == 1:
        raise ScoringError(
            "scores of version 0.1.0: their intervals and p-values are wrong for few patients",
            where=path,
            expected=f"format {FORMAT}",
            remedy="score the submissions again: medground-bench score SUBMISSION... --dataset DATASET",
        )
    if data.get("format") == 2:
        raise ScoringError(
            "these scores have no ceilings",
            where=path,
            expected=f"format {FORMAT}",
            remedy="score the submissions again: medground-bench score SUBMISSION... --dataset DATASET",
        )
    if data.get("format") != FORMAT:
        raise ScoringError(
            f"score format {data.get('format')!r}", where=path, expected=str(FORMAT), remedy="score again, or upgrade"
        )
    try:
        return _from_json(data, path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ScoringError(
            f"damaged score file ({type(error).__name__}: {error})", where=path, remedy="score again"
        ) from error


def _from_json(data: Mapping[str, Any], path: Path) -> ScoreFile:
    columns = data["records"]
    table = RecordTable(
        **{name: _texts(columns[name]) for name in _TEXT},
        cluster=np.array(columns["cluster"], np.int64),
        evidence_fraction=np.array(columns["evidence_fraction"], np.float64),
    )
    chance = {
        row: BoxScores(**{k: np.array(v, np.float64) for k, v in scores.items()})
        for row, scores in data["chance"].items()
    }
    bounds = {key: BoxScores(**{k: _array(v) for k, v in scores.items()}) for key, scores in data["bounds"].items()}
    n = len(table)
    lengths = [len(getattr(table, name)) for name in table.__dataclass_fields__]
    if set(lengths) != {n} or any(len(v) != n for s in (*chance.values(), *bounds.values()) for v in s):
        raise ValueError("columns of different lengths")
    anatomy = data.get("anatomy")
    if anatomy is not None and anatomy["places"] != list(PLACES):
        raise ValueError("shares of other places")
    submissions = []
    for entry in data["submissions"]:
        rows = np.array(entry["rows"], np.int64)
        scores = {k: _array(v) for k, v in entry["scores"].items()}
        if any(len(v) != len(rows) for v in scores.values()) or (len(rows) and not 0 <= rows.min() <= rows.max() < n):
            raise ValueError("scores and rows do not fit")
        places = entry.get("places") if n else None
        if places is not None and places["of"] not in ("map", "boxes"):
            raise ValueError("shares of neither maps nor boxes")
        if set(entry["bounds"]) - set(BOUND_ROWS) or set(entry["bounds"].values()) - set(bounds):
            raise ValueError("bounds that are not there")
        submissions.append(
            SubmissionScores(
                provenance={k: entry["provenance"][k] for k in entry["provenance"]},
                predictions=entry["predictions"],
                positions=rows,
                scores=scores,
                aggregates=[Aggregate.from_json(a) for a in entry["aggregates"]],
                chance_aggregates={
                    k: [Aggregate.from_json(a) for a in v] for k, v in entry["chance_aggregates"].items()
                },
                warnings=list(entry["warnings"]),
                bounds={str(k): str(v) for k, v in entry["bounds"].items()},
                bound_aggregates={k: [Aggregate.from_json(a) for a in v] for k, v in entry["bound_aggregates"].items()},
                own_ceiling=str(entry["own_ceiling"]),
                places=None if places is None else _shares(places["shares"], len(rows)),
                places_of="boxes" if places is None else places["of"],
                protocols={str(k): ProtocolSummary.from_json(str(k), v) for k, v in entry.get("protocols", {}).items()},
            )
        )
    dataset = data["dataset"]
    return ScoreFile(
        config=dataset["config"],
        fingerprint=dataset["fingerprint"],
        dataset_records=int(dataset["records"]),
        table=table,
        chance=chance,
        submissions=submissions,
        settings=data["settings"],
        versions=data["versions"],
        created=data["created"],
        bounds=bounds,
        path=str(path),
        evidence_places=None if anatomy is None else _shares(anatomy["evidence"], n),
        area_places=None if anatomy is None else _shares(anatomy["area"], n),
    )


def _texts(values: list[Any]) -> np.ndarray:
    return np.array([sys.intern(str(value)) for value in values], object)


def _array(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in values], np.float64)


def _list(values: np.ndarray) -> list[float | None]:
    return [None if v != v else v for v in values.tolist()]
