"""Publishing a dataset folder on the Hugging Face Hub without giving away what may not be passed on.

The images and annotations of credentialed sources (Chest ImaGenome, MIMIC-CXR-JPG, VinDr-CXR, PadChest-GR) are given
to named persons under an agreement. A folder that holds them goes to a private, gated repository only. What may be
public is a folder of open sources, or the *ids* of a credentialed one: which records exist, without image, finding,
question, boxes or answer. Such a copy is made of what is allowed, not by leaving out what is not: the schema's columns,
fresh metadata, a card and a build record that are written for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import BuildError, PublishError, SourceError
from medground_bench.core.files import atomic_write, scratch_folder
from medground_bench.core.hub import hub_errors, require_repo_id
from medground_bench.core.schema import masked_id
from medground_bench.core.versions import software_versions
from medground_bench.dataset.card import render_card
from medground_bench.dataset.columns import IMAGE_COLUMN, TABLE, WITHHELD, parquet_metadata
from medground_bench.dataset.folder import BUILD_RECORD, FORMAT, name_by_content, open_folder, read_build_record
from medground_bench.dataset.masking import builder_key, require_consistent
from medground_bench.sources import is_credentialed, source_info

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from medground_bench.dataset.folder import DatasetFolder

__all__ = ["JOINING_ENDING", "Publication", "credentialed_sources", "ids_only_copy", "publish"]

JOINING_ENDING = ".joining.jsonl"
"""Which published id is which record: ``folder.joining.jsonl``, beside the folder; it is for its builder alone."""

_CONFIGS = ("direct", "reason", "candidates")
_PARQUET = re.compile(rf"(?:{'|'.join(_CONFIGS)})/test-\d{{5}}-of-\d{{5}}(?:-[0-9a-f]{{16}})?\.parquet")
_ROWS_AT_ONCE = 4096


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
    files it lists, whose checksums are verified first. A row whose id does not follow from its columns, a link, and a
    file of another name are refused.

    Parameters
    ----------
    folder : path
        What ``medground-bench build`` wrote.
    repo_id : str
        ``ORG/NAME``.
    ids_only : bool
        Leave out all images, and of credentialed sources everything but masked ids; see :func:`ids_only_copy`.
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
        opened = open_folder(folder, config)
        opened.verify()
        require_consistent(opened)
    closed = credentialed_sources(folder)
    if public and closed and not ids_only:
        raise _refusal(closed, "would become public", folder)
    api = HfApi(endpoint=endpoint, token=token)
    with contextlib.ExitStack() as stack:
        if ids_only:
            say("writing an ids-only copy")
            source = stack.enter_context(scratch_folder(Path(tempfile.gettempdir()) / "medground-push")) / "copy"
            record = ids_only_copy(folder, source)
        else:
            source = folder
        files = ["README.md", BUILD_RECORD, *(name for facts in record["configs"].values() for name in facts["files"])]
        _require_plain(source, files)
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
    """Copy of a dataset folder what may be passed on; returns the copy's build record.

    No row has an image. Rows of credentialed sources have ``dataset``, ``model``, ``mode`` and the expected answer; the
    columns :data:`~medground_bench.dataset.columns.WITHHELD` are null and the id, which names image and finding, is
    replaced by :func:`~medground_bench.core.schema.masked_id` under the key of the folder's builder
    (:func:`~medground_bench.dataset.masking.builder_key`). They come in the order of these ids, which says nothing.
    Which is which is written to a file beside the folder, with :data:`JOINING_ENDING`, that only its owner can read.

    The configs' fingerprints are those of the full rows: a folder built from the sources can be compared with them.

    Raises
    ------
    PublishError
        If the key cannot be used.
    """
    folder, out = Path(folder).absolute(), Path(out)
    full = read_build_record(folder)
    closed = set(credentialed_sources(folder))
    key = builder_key(folder) if closed else b""
    configs: dict[str, Any] = {}
    joining: list[dict[str, str]] = []
    for config in (name for name in _CONFIGS if name in full["configs"]):
        opened = open_folder(folder, config)
        (out / config).mkdir(parents=True)
        files = name_by_content(_write_public(opened, closed, key, joining, out / config))
        configs[config] = _public_record(full["configs"][config], opened, closed, files)
    if joining:
        with atomic_write(folder.with_name(folder.name + JOINING_ENDING), permissions=0o600) as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in joining)
    record = {"format": FORMAT, "versions": software_versions(), "configs": configs}
    (out / BUILD_RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "README.md").write_text(render_card(record), encoding="utf-8")
    return record


def _public_record(
    full: Mapping[str, Any], opened: DatasetFolder, closed: set[str], files: Mapping[str, Any]
) -> dict[str, Any]:
    """A build record of what the rows themselves say; of the full one only numbers and the fingerprint go in."""
    pairs = list(opened.values("model", "dataset"))
    notes = [
        f"{len(full[listing])} messages ({listing}) are not listed in an ids-only copy."
        for listing in ("missing", "broken", "clipped")
        if full.get(listing)
    ]
    return {
        "rows": len(pairs),
        "images": int(full.get("images") or 0),
        "fingerprint": _fingerprint(opened),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": software_versions(),
        "counts": [{"model": m, "dataset": d, "rows": n} for (m, d), n in Counter(pairs).items()],
        "missing": [],
        "broken": [],
        "clipped": [],
        "notes": [*notes, _ids_note(closed)],
        "ids_only": {"without": [IMAGE_COLUMN], "withheld": list(WITHHELD), "of": sorted(closed)},
        "files": dict(files),
    }


def _fingerprint(opened: DatasetFolder) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", opened.fingerprint):
        raise BuildError("the build record has no fingerprint", where=opened.path, remedy="build the folder again")
    return opened.fingerprint


def _ids_note(closed: set[str]) -> str:
    note = "This copy holds ids only: no row has an image."
    if closed:
        note += (
            f" Rows of {', '.join(sorted(closed))} have no image id, finding, question, boxes or answers either, and "
            "their ids are keyed hashes whose key stays with who built the folder; build it from your own copies of "
            "the sources to have them."
        )
    return note


def _write_public(
    opened: DatasetFolder, closed: set[str], key: bytes, joining: list[dict[str, str]], out: Path
) -> list[Path]:
    """Write the rows of a config that may be passed on; adds to ``joining`` which masked id is which record."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [column for column in TABLE if column.name != IMAGE_COLUMN]
    kinds = {
        "string": pa.string(),
        "strings": pa.list_(pa.string()),
        "int32": pa.int32(),
        "boxes": pa.list_(pa.list_(pa.float64(), 4)),
    }
    schema = pa.schema([(c.name, kinds[c.kind]) for c in columns], metadata=parquet_metadata(image=False))
    shown = [row for row in opened.plain_rows() if row["dataset"] not in closed]
    hidden = []
    for row in opened.plain_rows():
        if row["dataset"] in closed:
            masked = masked_id(row["id"], key)
            joining.append({"config": opened.config, "masked": masked, "id": row["id"]})
            hidden.append({**row, **dict.fromkeys(WITHHELD), "id": masked})
    hidden.sort(key=lambda row: str(row["id"]))
    path = out / "test-00000-of-00001.parquet"
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        rows = chain(shown, hidden)
        while batch := [{c.name: row.get(c.name) for c in columns} for row in islice(rows, _ROWS_AT_ONCE)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return [path]


def _require_plain(source: Path, files: Iterable[str]) -> None:
    """Refuse file names that are patterns, leave the folder or are none of ours, and links."""
    for name in files:
        path = source / name
        if name not in ("README.md", BUILD_RECORD) and not _PARQUET.fullmatch(name):
            raise PublishError(f"{name!r} is no file of a dataset folder; nothing was uploaded", where=source)
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise PublishError("this is a link, not a file; nothing was uploaded", where=path)


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
