"""Publishing a dataset folder on the Hugging Face Hub without giving away what may not be passed on.

The images and annotations of credentialed sources (Chest ImaGenome, MIMIC-CXR-JPG, VinDr-CXR, PadChest-GR) are given
to named persons under an agreement. A folder that holds them goes to a private, gated repository only. What may be
public is a folder of open sources, or the *ids* of a credentialed one: which records exist, without image, finding,
question, boxes or answer; whoever has the sources builds the rest.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import PublishError, SourceError
from medground_bench.core.hub import hub_errors, require_repo_id
from medground_bench.core.schema import masked_id
from medground_bench.dataset.card import render_card
from medground_bench.dataset.columns import IMAGE_COLUMN, WITHHELD, parquet_metadata
from medground_bench.dataset.folder import BUILD_RECORD, name_by_content, open_folder, read_build_record
from medground_bench.sources import is_credentialed, source_info

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["Publication", "credentialed_sources", "ids_only_copy", "publish"]

_CONFIGS = ("direct", "reason", "candidates")


@dataclass(frozen=True)
class Publication:
    """What was published.

    Attributes
    ----------
    url : str
        The repository.
    commit : str
        Hub commit of the upload.
    private : bool
        Whether only those who are given access can see it.
    ids_only : bool
        Whether images (and what belongs to credentialed sources) were left out.
    files : tuple of str
        Paths of the uploaded files in the repository.
    """

    url: str
    commit: str
    private: bool
    ids_only: bool
    files: tuple[str, ...]


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    ids_only: bool = False,
    public: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Publication:
    """Upload a dataset folder to a dataset repository of the Hub.

    The repository is created private and gated (access on manual approval), and that is confirmed by the Hub before
    the first byte is uploaded. Only the folder's own files are uploaded: the card, the build record and the parquet
    files it lists, whose checksums are verified first.

    Parameters
    ----------
    folder : path
        What ``medground-bench build`` wrote.
    repo_id : str
        ``ORG/NAME``.
    ids_only : bool
        Leave out all images, and of credentialed sources everything but ids; see :func:`ids_only_copy`.
    public : bool
        Publish openly. Refused where images or annotations of credentialed sources would become public.
    token, endpoint : str, optional
        As in ``huggingface_hub``; by default the saved login and ``HF_ENDPOINT``.
    progress : callable, optional
        Called with a line for each step.

    Raises
    ------
    PublishError
        If something would become public that must not, or the Hub refuses.
    BuildError
        If the folder is damaged or not one.
    """
    from huggingface_hub import HfApi

    say = progress or (lambda line: None)
    folder = Path(folder).expanduser()
    require_repo_id(repo_id, "my-lab/medground-bench")
    say("verifying the folder")
    record = read_build_record(folder)
    for config in record["configs"]:
        open_folder(folder, config).verify()
    closed = credentialed_sources(folder)
    if public and closed and not ids_only:
        raise _refusal(closed, "would become public", folder)
    api = HfApi(endpoint=endpoint, token=token)
    with contextlib.ExitStack() as stack:
        if ids_only:
            say("writing an ids-only copy")
            source = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medground-ids-"))) / "copy"
            record = ids_only_copy(folder, source)
        else:
            source = folder
        files = ["README.md", BUILD_RECORD, *(name for facts in record["configs"].values() for name in facts["files"])]
        stack.enter_context(hub_errors(repo_id))
        say("preparing the repository")
        _prepare_repository(api, repo_id, public=public, closed=() if ids_only else closed)
        say(f"uploading {len(files)} files")
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=str(source),
            allow_patterns=files,
            # Files of an earlier upload that this one does not replace.
            delete_patterns=[f"{config}/*.parquet" for config in _CONFIGS],
            commit_message=f"Upload MedGround-Bench ({', '.join(record['configs'])}{', ids only' if ids_only else ''})",
        )
    url = f"{api.endpoint}/datasets/{repo_id}"
    return Publication(url, commit.oid, not public, ids_only, tuple(files))


def credentialed_sources(folder: str | Path) -> tuple[str, ...]:
    """Keys of the credentialed sources whose rows a dataset folder holds; the rows are asked, not the build record."""
    found: dict[str, None] = {}
    for config in read_build_record(folder)["configs"]:
        found.update(dict.fromkeys(name for (name,) in open_folder(folder, config).values("dataset")))
    return tuple(name for name in found if is_credentialed(name))


# --- ids only


def ids_only_copy(folder: str | Path, out: str | Path) -> dict[str, Any]:
    """Copy a dataset folder without what may not be passed on; returns the copy's build record.

    No row keeps its image. Rows of credentialed sources keep ``dataset``, ``model``, ``mode``, ``image_id``,
    ``patient_id``, the image's size and the expected answer; the columns
    :data:`~medground_bench.dataset.columns.WITHHELD` are null and the id, which contains the finding, is replaced by
    :func:`~medground_bench.core.schema.masked_id`.
    The configs' fingerprints are those of the full rows: a folder built from the sources can be
    compared with them. Messages about single rows are left out of the record.
    """
    folder, out = Path(folder), Path(out)
    record = json.loads(json.dumps(read_build_record(folder)))
    closed = set(credentialed_sources(folder))
    for config, facts in record["configs"].items():
        (out / config).mkdir(parents=True)
        facts["files"] = name_by_content([_strip(path, out, closed) for path in open_folder(folder, config).files])
        for listing in ("missing", "broken", "clipped"):
            if facts[listing]:
                facts["notes"].append(f"{len(facts[listing])} messages ({listing}) are not listed in an ids-only copy.")
            facts[listing] = []
        facts["notes"].append(_ids_note(closed))
        facts["ids_only"] = {"without": [IMAGE_COLUMN], "withheld": list(WITHHELD), "of": sorted(closed)}
    (out / BUILD_RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "README.md").write_text(render_card(record), encoding="utf-8")
    return dict(record)


def _ids_note(closed: set[str]) -> str:
    note = "This copy holds ids only: no row has an image."
    if closed:
        note += (
            f" Rows of {', '.join(sorted(closed))} have no finding, question, boxes or answers either, and their ids "
            "are SHA-256 sums of the full ids; build the folder from your own copies of the sources to have them."
        )
    return note


def _strip(path: Path, out: Path, closed: set[str]) -> Path:
    """Write the ids-only copy of one parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    copy = out / path.parent.name / path.name
    with pq.ParquetFile(path) as file:
        columns = [n for n in file.schema_arrow.names if n != IMAGE_COLUMN]
        schema = pa.schema([file.schema_arrow.field(n) for n in columns], metadata=parquet_metadata(image=False))
        with pq.ParquetWriter(copy, schema, compression="zstd") as writer:
            for batch in file.iter_batches(batch_size=4096, columns=columns):
                rows = [_public_row(row, closed) for row in batch.to_pylist()]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return copy


def _public_row(row: dict[str, Any], closed: set[str]) -> dict[str, Any]:
    if row["dataset"] not in closed:
        return row
    return {**row, **dict.fromkeys(WITHHELD), "id": masked_id(row["id"])}


# --- the repository


def _prepare_repository(api: HfApi, repo_id: str, *, public: bool, closed: Iterable[str]) -> None:
    """Create the repository or check the one that is there; afterwards it is as private as it has to be."""
    private = _is_private(api, repo_id)
    closed = tuple(closed)
    if private is False and closed:
        raise _refusal(closed, "would become public: the repository exists and is public", repo_id)
    if private is False and not public:
        raise PublishError(
            "this repository exists and is public",
            where=repo_id,
            expected="a new repository, or a private one",
            remedy="choose another name, or pass --public if these data are meant to be public",
        )
    if private is True and public:
        raise PublishError(
            "this repository exists and is private; it is not made public",
            where=repo_id,
            expected="a new repository: the history of an old one may hold images that must not be public",
            remedy="choose another name, or leave out --public",
        )
    if private is None:
        api.create_repo(repo_id, repo_type="dataset", private=not public, exist_ok=True)
    if public:
        return
    api.update_repo_settings(repo_id, repo_type="dataset", private=True, gated="manual")
    info = api.dataset_info(repo_id)
    if info.private is not True or info.gated not in ("manual", True):
        raise PublishError(
            "the hub did not make this repository private and gated; nothing was uploaded",
            where=repo_id,
            expected=f"private and gated, found private={info.private}, gated={info.gated!r}",
            remedy="set it in the repository's settings and push again",
        )


def _is_private(api: HfApi, repo_id: str) -> bool | None:
    """Whether an existing repository is private; None where there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return bool(api.dataset_info(repo_id).private)
    except RepositoryNotFoundError:
        return None


def _refusal(closed: Iterable[str], what: str, where: object) -> PublishError:
    reasons = "; ".join(f"{info.title}: {info.licence}" for info in map(_info_or_key, closed))
    return PublishError(
        f"images and annotations of credentialed sources {what}. Their agreements forbid passing them on ({reasons})",
        where=where,
        expected="a private, gated repository, or ids only",
        remedy="push without --public to a private repository, or publish which records there are with --ids-only",
    )


def _info_or_key(name: str) -> Any:
    try:
        return source_info(name)
    except SourceError:
        from types import SimpleNamespace

        return SimpleNamespace(title=name, licence="unknown terms")
