"""The columns of the dataset, in one table, and a row of it as a typed :class:`Record`.

What ``datasets`` is told of a column, what a parquet file says of it, whether it counts for the fingerprint and whether
an ids-only publication may show it are read from :data:`TABLE` and from nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from medground_bench.core.errors import BuildError
from medground_bench.core.schema import Box

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

__all__ = [
    "COLUMNS",
    "IMAGE_COLUMN",
    "TABLE",
    "WITHHELD",
    "Column",
    "Record",
    "card_features",
    "features",
    "fingerprint",
    "parquet_metadata",
    "row_digests",
    "withheld",
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of every config.

    Attributes
    ----------
    name : str
        Its name.
    kind : {"string", "strings", "int32", "boxes", "image"}
        What it holds; boxes are lists of exactly four float64.
    fingerprinted : bool
        Whether a change of it makes another dataset. The image does not count, so that an ids-only copy, and a build
        by another decoder, are still the same records; nor does what follows from the other columns.
    withheld : bool
        Whether it is null in an ids-only copy, in rows of credentialed sources: it tells the finding, or which image
        it is about.
    """

    name: str
    kind: Literal["string", "strings", "int32", "boxes", "image"] = "string"
    fingerprinted: bool = True
    withheld: bool = False


TABLE: tuple[Column, ...] = (
    Column("id"),  # of a credentialed row an ids-only copy has a keyed hash of it
    Column("dataset"),
    Column("model"),
    Column("mode"),
    Column("image", "image", fingerprinted=False),
    Column("image_id", withheld=True),
    Column("patient_id", withheld=True),
    Column("width", "int32", withheld=True),
    Column("height", "int32", withheld=True),
    Column("attribute", withheld=True),
    Column("question", withheld=True),
    Column("answer", fingerprinted=False),
    Column("response", withheld=True),
    Column("boxes", "boxes", withheld=True),
    Column("regions", "strings", fingerprinted=False, withheld=True),  # folders of 0.2 have none: the same records
    Column("prediction", fingerprinted=False, withheld=True),
    Column("prediction_edited", fingerprinted=False, withheld=True),
    Column("prediction_edited_kept", fingerprinted=False, withheld=True),
    Column("prediction_edited_kept_normal", fingerprinted=False, withheld=True),
)
"""Columns of every config, in this order."""

COLUMNS: tuple[str, ...] = tuple(column.name for column in TABLE)
"""Their names."""

IMAGE_COLUMN = "image"

WITHHELD: tuple[str, ...] = tuple(column.name for column in TABLE if column.withheld)
"""Columns that are null in an ids-only copy, for rows of credentialed sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One row of a dataset folder: a question about an image and, but in ``candidates``, what an LVLM said to it.

    Attributes
    ----------
    id : str
        Unique in its config.
    dataset, image_id, patient_id : str
        Key of the source, and image and patient as the source names them.
    model, mode : str or None
        Key of the LVLM, and ``"direct"`` or ``"reason"``; None for a candidate.
    width, height : int
        Size of the image in pixels.
    attribute, question, answer : str
        The finding, the question asked for it, and the expected answer.
    response : str or None
        The LVLM's own greedy answer to the image: the text whose evidence is attributed.
    boxes : tuple of (x1, y1, x2, y2)
        The expert's evidence boxes, pixels of :attr:`image`, half-open.
    regions : tuple of str
        The source's own name of the anatomical region of each box, in the boxes' order; empty where it has none.
    prediction, prediction_edited, prediction_edited_kept, prediction_edited_kept_normal : str or None
        The LVLM's answers to the original image, the foreground edit, the background edit, and the background edit to
        "no abnormality".
    """

    id: str
    dataset: str
    model: str | None = None
    mode: str | None = None
    image_id: str
    patient_id: str
    width: int
    height: int
    attribute: str
    question: str
    answer: str = "Yes"
    response: str | None = None
    boxes: tuple[Box, ...]
    regions: tuple[str, ...] = ()
    prediction: str | None = None
    prediction_edited: str | None = None
    prediction_edited_kept: str | None = None
    prediction_edited_kept_normal: str | None = None
    load_image: Callable[[], Image] | None = field(default=None, repr=False, compare=False)

    @property
    def image(self) -> Image:
        """The image, 8-bit grey ("L"), decoded at every access.

        Raises
        ------
        BuildError
            If the folder was published without images.
        """
        if self.load_image is None:
            raise BuildError("this record was made without its image", where=self.id)
        return self.load_image()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image."""
        return self.width, self.height

    @classmethod
    def from_row(cls, row: Mapping[str, Any], load_image: Callable[[], Image] | None = None) -> Record:
        """A record from the columns of a row; the image column and unknown ones are left aside.

        Raises
        ------
        BuildError
            If the row is of an ids-only copy and its finding, question and boxes are withheld.
        """
        if row["boxes"] is None:
            raise withheld(row["id"])
        values = {name: row[name] for name in _FIELDS if name in row}
        values["boxes"] = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in row["boxes"])
        values["regions"] = tuple(row.get("regions") or ())
        return cls(**values, load_image=load_image)

    def to_row(self) -> dict[str, Any]:
        """The columns as plain values, without the image."""
        row = {name: getattr(self, name) for name in _FIELDS}
        row["boxes"] = [list(box) for box in self.boxes]
        row["regions"] = list(self.regions)
        return row


def withheld(key: str) -> BuildError:
    """The error of a row of an ids-only copy."""
    return BuildError(
        "this row is of an ids-only copy: its finding, question, boxes and answers are withheld",
        where=key,
        remedy="build the folder from your own copies of the sources",
    )


_FIELDS = tuple(f.name for f in fields(Record) if f.name != "load_image")


def features() -> datasets.Features:
    """Features of every config, for ``datasets``."""
    import datasets

    # List came with datasets 4, where Sequence of a Sequence turns into it.
    listing = datasets.List if hasattr(datasets, "List") else datasets.Sequence
    kinds = {
        "string": datasets.Value("string"),
        "strings": listing(datasets.Value("string")),
        "int32": datasets.Value("int32"),
        "boxes": listing(listing(datasets.Value("float64"), length=4)),
        "image": datasets.Image(),
    }
    return datasets.Features({column.name: kinds[column.kind] for column in TABLE})


def parquet_metadata(*, image: bool = True) -> dict[bytes, bytes]:
    """Schema metadata of a parquet file: the features in the words that every ``datasets`` version reads.

    ``Sequence`` is both old and new. Without ``image``, that of an ids-only copy.
    """
    kinds: dict[str, dict[str, Any]] = {
        "string": {"dtype": "string", "_type": "Value"},
        "strings": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "Sequence"},
        "int32": {"dtype": "int32", "_type": "Value"},
        "boxes": {
            "feature": {"feature": {"dtype": "float64", "_type": "Value"}, "length": 4, "_type": "Sequence"},
            "_type": "Sequence",
        },
        "image": {"_type": "Image"},
    }
    info = {"info": {"features": {c.name: kinds[c.kind] for c in TABLE if image or c.kind != "image"}}}
    return {b"huggingface": json.dumps(info).encode()}


def card_features(*, image: bool = True) -> list[dict[str, Any]]:
    """The features for the YAML of a dataset card, in the words that every ``datasets`` version reads."""
    kinds: dict[str, dict[str, Any]] = {
        "string": {"dtype": "string"},
        "strings": {"sequence": "string"},
        "int32": {"dtype": "int32"},
        "boxes": {"sequence": {"sequence": "float64", "length": 4}},
        "image": {"dtype": "image"},
    }
    return [{"name": c.name, **kinds[c.kind]} for c in TABLE if image or c.kind != "image"]


_FINGERPRINTED = tuple(column.name for column in TABLE if column.fingerprinted)


def fingerprint(rows: Iterable[Mapping[str, Any]]) -> str:
    """Fingerprint of a config's rows: what a submission was made for and is scored against.

    Parameters
    ----------
    rows : iterable of mapping
        Rows with the columns of :data:`TABLE`; those that do not count, the image among them, are ignored. Order does
        not matter.

    Returns
    -------
    str
        ``"sha256:"`` and 64 hex digits.
    """
    return "sha256:" + hashlib.sha256(b"".join(row_digests(rows))).hexdigest()


def row_digests(rows: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """SHA-256 of the fingerprinted columns of every row, sorted: what identifies a config whatever its order."""
    return sorted(
        hashlib.sha256(
            json.dumps([_plain(k, row.get(k)) for k in _FINGERPRINTED], separators=(",", ":")).encode()
        ).digest()
        for row in rows
    )


def _plain(key: str, value: Any) -> Any:
    """Plain JSON of a column: the same for tuples, lists and arrays, for 1 and 1.0 in a box."""
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        value = value.tolist()
    if key == "boxes" and value is not None:
        return [[float(v) for v in box] for box in value]
    return value
