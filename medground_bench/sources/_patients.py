"""Which studies are of one patient, where the annotation file names studies only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medground_bench.core.errors import SourceError
from medground_bench.sources._tables import read_table

__all__ = ["patients_of_studies", "read_patients"]


def read_patients(path: Path) -> dict[str, str]:
    """Study -> patient, from a table with the columns ``StudyID`` and ``PatientID``.

    Raises
    ------
    SourceError
        If a column is missing, an id is empty, or a study is given two patients.
    """
    patients: dict[str, str] = {}
    for row in read_table(path, ("StudyID", "PatientID")):
        study, patient = (field.strip() for field in row.fields)
        where = f"{path}:{row.line}"
        if not study or not patient:
            raise SourceError("an empty StudyID or PatientID", where=where, expected="both in every row")
        if patients.setdefault(study, patient) != patient:
            raise SourceError(
                f"study {study} is of patient {patient} here and of {patients[study]} in an earlier row", where=where
            )
    return patients


def patients_of_studies(entries: Iterable[Any], known: Mapping[str, str]) -> dict[str, str]:
    """Study -> patient: as known, else that of the studies it is linked to, else the first of them.

    Studies are linked by ``PreviousStudyID``, also through a study that has no entry of its own (union-find).

    Parameters
    ----------
    entries : iterable
        The annotation file's entries, with ``StudyID`` and ``PreviousStudyID``; what is no object is passed over.
    known : mapping
        Study -> patient, from a table; believed where the links say otherwise.
    """
    parent: dict[str, str] = {}

    def root(study: str) -> str:
        parent.setdefault(study, study)
        while parent[study] != study:
            parent[study] = parent[parent[study]]
            study = parent[study]
        return study

    for entry in entries:
        if not isinstance(entry, dict) or not (study := _id(entry.get("StudyID"))):
            continue
        root(study)
        if previous := _id(entry.get("PreviousStudyID")):
            parent[root(previous)] = root(study)
    linked: dict[str, list[str]] = {}
    for study in parent:
        linked.setdefault(root(study), []).append(study)
    patients: dict[str, str] = {}
    for studies in linked.values():
        stated = {known[study] for study in studies if study in known}
        together = stated.pop() if len(stated) == 1 else studies[0]
        patients |= {study: known.get(study, together) for study in studies}
    return patients


def _id(value: Any) -> str:
    """An id as text; nothing for null, and for the NaN that some writers put in its place."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
