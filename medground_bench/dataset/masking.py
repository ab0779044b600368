"""Ids that tell nothing: keyed hashes of record ids, and the keys.

A record's id names its image and finding. Hashed without a key it would be no secret: whoever lists the findings and
images finds the id by trying. There are two keys, and neither is ever published:

- what is published *ids only* is masked with a random key, kept in a file beside the folder (:func:`builder_key`);
- what is submitted is masked with a key that follows from the whole content of the dataset (:func:`dataset_key`), so
  that two holders of the same dataset, who never exchanged a secret, have the same one, and nobody else.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import BuildError, PublishError
from medground_bench.core.schema import candidate_id, record_id
from medground_bench.dataset.columns import row_digests

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder

__all__ = ["KEY_ENDING", "builder_key", "dataset_key", "require_consistent"]

KEY_ENDING = ".masking-key"
"""The key of ``folder`` lies in ``folder.masking-key``, beside it: what is copied with the folder does not hold it."""

_DOMAIN = b"medground-bench masking key 1\0"
_KEY_BYTES = 32


def dataset_key(dataset: DatasetFolder) -> bytes:
    """The key that follows from all rows of a config: findings, boxes and responses, which only its holders know.

    Unlike the fingerprint, from which it cannot be computed, it is never shown.

    Raises
    ------
    BuildError
        If the folder is an ids-only copy: its rows are public, and so would be a key made of them.
    """
    if any(boxes is None for (boxes,) in dataset.values("boxes")):
        raise BuildError(
            "this folder is an ids-only copy",
            where=dataset.path,
            remedy="build the folder from your own copies of the sources",
        )
    return hashlib.sha256(_DOMAIN + b"".join(row_digests(dataset.plain_rows()))).digest()


def builder_key(folder: str | Path) -> bytes:
    """The random key of a folder's builder, 32 bytes, from the file beside the folder; made there the first time.

    Raises
    ------
    PublishError
        If the file is a link, can be read by others, or does not hold a key.
    """
    folder = Path(folder).absolute()
    path = folder.with_name(folder.name + KEY_ENDING)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or (os.name != "nt" and found.st_mode & 0o077):
        raise PublishError(
            "the masking key is a link, or others can read it",
            where=path,
            expected="a file of mode 600",
            remedy="chmod 600 it, if nobody has read it; else delete it, and a new one is made",
        )
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise PublishError("this file does not hold a masking key", where=path, remedy="delete it: a new one is made")
    return key


def require_consistent(dataset: DatasetFolder) -> None:
    """Check that every row's id follows from its own columns.

    What may leave is decided by a row's ``dataset``; a row whose id says otherwise is not believed.

    Raises
    ------
    PublishError
        At the first row whose id is another.
    """
    for row in dataset.plain_rows("id", "dataset", "model", "mode", "image_id", "attribute"):
        if not _follows(row):
            raise PublishError(
                f"the id of a row does not follow from its columns (dataset {row['dataset']!r})",
                where=f"{dataset.path / dataset.config}: {row['id']}",
                expected=repr(_id_of(row)),
                remedy="build the folder again; nothing was sent",
            )


def _follows(row: Mapping[str, Any]) -> bool:
    expected = _id_of(row)
    if row["id"] == expected:
        return True
    ordinal = str(row["id"]).removeprefix(f"{expected}#")  # the second finding of this name on the image, ...
    return ordinal.isascii() and ordinal.isdigit() and row["id"] == f"{expected}#{int(ordinal)}" and int(ordinal) > 1


def _id_of(row: Mapping[str, Any]) -> str:
    place = (row["dataset"], row["image_id"], row["attribute"])
    return candidate_id(*place) if row["model"] is None else record_id(row["model"], row["mode"], *place)
