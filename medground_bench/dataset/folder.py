"""The dataset folder: what ``medground-bench build`` writes and ``load_dataset`` opens.

``README.md`` (the card with the configs), ``{config}/test-*.parquet`` with embedded images, named by what is in them,
and ``build.json``, the build record: versions, settings, checksums, the fingerprint of each config, and what was left
out.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from medground_bench.core.errors import BuildError, nearest
from medground_bench.core.files import sha256_of, sweep
from medground_bench.dataset.columns import IMAGE_COLUMN, Record, fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BUILD_RECORD", "FORMAT", "DatasetFolder", "name_by_content", "open_folder", "read_build_record"]

BUILD_RECORD = "build.json"
FORMAT = 1


def read_build_record(path: str | Path) -> dict[str, Any]:
    """The build record of a dataset folder.

    Raises
    ------
    BuildError
        If the folder or its record is missing, cut off, or of a later format.
    """
    path = Path(path).expanduser()
    file = path / BUILD_RECORD
    remedy = "build it with 'medground-bench build --out ...'"
    if not path.exists():
        sweep(path.absolute().parent)  # a build that was killed while replacing it may have left it aside
    if not path.is_dir():
        raise BuildError("there is no such folder", where=path, expected="a dataset folder", remedy=remedy)
    try:
        record = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise BuildError(f"this is not a dataset folder: it has no {BUILD_RECORD}", where=path, remedy=remedy) from None
    except ValueError as error:
        raise BuildError(f"the build record is damaged: {error}", where=file, remedy=remedy) from error
    if not isinstance(record, dict) or not isinstance(record.get("configs"), dict):
        raise BuildError("the build record has no configs", where=file, remedy=remedy)
    if record.get("format") != FORMAT:
        raise BuildError(
            f"the folder has format {record.get('format')!r}",
            where=file,
            expected=f"format {FORMAT}",
            remedy="use the medground-bench that built it, or build it again",
        )
    return record


def name_by_content(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Rename the parquet files of a config to ``test-{number}-of-{count}-{checksum of all}.parquet``.

    ``load_dataset`` finds what it has read before by the patterns and sizes in the card, not by what the files hold.
    With the checksum in the names, and so in the card, a folder that was built again, or another of the same name and
    sizes, is never taken for the one that was read first.

    Returns
    -------
    dict of str to dict
        ``"{config}/{name}"`` -> ``bytes`` and ``sha256``, as the build record has them.
    """
    sums = [sha256_of(path) for path in paths]
    checksum = hashlib.sha256("".join(sums).encode()).hexdigest()[:16]
    facts = {}
    for number, (path, digest) in enumerate(zip(paths, sums, strict=True)):
        named = path.rename(path.with_name(f"test-{number:05d}-of-{len(paths):05d}-{checksum}.parquet"))
        facts[f"{named.parent.name}/{named.name}"] = {"bytes": named.stat().st_size, "sha256": digest}
    return facts


def open_folder(path: str | Path, config: str | None = None) -> DatasetFolder:
    """Open one config of a dataset folder.

    Parameters
    ----------
    path : path
        The folder.
    config : str, optional
        ``direct``, ``reason`` or ``candidates``; may be left out where there is only one.

    Raises
    ------
    BuildError
        If the folder is not one, lacks the config, or a file of it is missing or has another size than recorded.
    """
    path = Path(path).expanduser()
    record = read_build_record(path)
    configs = record["configs"]
    if config is None and len(configs) == 1:
        config = next(iter(configs))
    if config is None or config not in configs:
        raise BuildError(
            f"the folder has no config {config!r}" if config else "the folder has several configs",
            where=path,
            expected="one of " + ", ".join(configs),
            remedy=(nearest(config, configs) or "build it into this folder with 'medground-bench build --config ...'")
            if config
            else "name one (--config)",
        )
    return DatasetFolder(path, config, record)


def open_for_mode(path: str | Path, mode: str | None) -> DatasetFolder:
    """Open the config that a submission of a mode is about: the one of that name, else the folder's only one.

    Raises
    ------
    BuildError
        If the folder is not one, is damaged, or has several configs and none of that name.
    """
    configs = read_build_record(path)["configs"]
    return open_folder(path, mode if mode in configs or (mode is not None and len(configs) > 1) else None)


class DatasetFolder(Sequence[Record]):
    """One config of a dataset folder: a sequence of its records, read from disk as they are asked for.

    ``folder[3]``, ``folder[-1]``, ``folder[:10]`` and ``folder["id of a record"]`` work; so do ``"id" in folder`` and
    iteration, which streams. Images are decoded when :attr:`Record.image` is read.

    Attributes
    ----------
    path : Path
        The folder.
    config : str
        Name of the config.
    fingerprint : str
        Fingerprint of its rows, as recorded (see :func:`medground_bench.dataset.columns.fingerprint`).
    build : dict
        The build record.
    """

    def __init__(self, path: Path, config: str, build: dict[str, Any]) -> None:
        self.path = path
        self.config = config
        self.build = build
        entry = build["configs"][config]
        self.fingerprint: str = entry["fingerprint"]
        self._rows = int(entry["rows"])
        self.files = [path / name for name in entry["files"]]
        for name, facts in entry["files"].items():
            _check_file(path / name, facts["bytes"])
        self._groups: list[tuple[int, int, int]] | None = None  # of every row group: file, number in it, first row
        self._positions: dict[str, int] | None = None  # id -> row
        self._last: dict[bool, tuple[int, Any]] = {}  # the row group read last, of images (True) and of the rest

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"DatasetFolder({str(self.path)!r}, {self.config!r}, {len(self)} records)"

    @overload
    def __getitem__(self, key: int | str) -> Record: ...
    @overload
    def __getitem__(self, key: slice) -> list[Record]: ...
    def __getitem__(self, key: int | str | slice) -> Record | list[Record]:
        if isinstance(key, slice):
            return [self[position] for position in range(*key.indices(len(self)))]
        if isinstance(key, str):
            if key not in self._by_id():
                raise BuildError(
                    f"there is no row {key!r}", where=self.path / self.config, remedy=nearest(key, self._by_id())
                )
            key = self._by_id()[key]
        if not -len(self) <= key < len(self):
            raise IndexError(f"record {key} of {len(self)}")
        return self._record(key % len(self))

    def __iter__(self) -> Iterator[Record]:
        for position, row in enumerate(self._stream()):
            yield Record.from_row(row, partial(self._image, position))

    def __contains__(self, key: object) -> bool:
        if isinstance(key, Record):
            return key.id in self._by_id() and self[key.id] == key
        return key in self._by_id()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": {}}  # to worker processes without what was read last

    def values(self, *columns: str) -> Iterator[tuple[Any, ...]]:
        """The named columns of every row, as plain values; nothing else is read from disk."""
        for row in self._stream(columns):
            yield tuple(row[name] for name in columns)

    def plain_rows(self, *columns: str) -> Iterator[dict[str, Any]]:
        """The columns of every row (by default all but the image) as plain values; of an ids-only copy too."""
        return self._stream(columns)

    def verify(self) -> None:
        """Recompute checksums and fingerprint.

        Raises
        ------
        BuildError
            If a file or the rows are not what the build record says.
        """
        for name, facts in self.build["configs"][self.config]["files"].items():
            if sha256_of(self.path / name) != facts["sha256"]:
                raise BuildError("the file is damaged: its checksum differs", where=self.path / name)
        if fingerprint(self._stream()) != self.fingerprint:
            raise BuildError("the rows are not those of the build record", where=self.path / self.config)

    def _stream(self, columns: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
        """Rows in order without the image, or with the named columns only."""
        for file in self._parquet():
            names = list(columns) or [n for n in file.schema_arrow.names if n != IMAGE_COLUMN]
            for batch in file.iter_batches(batch_size=512, columns=names):
                yield from batch.to_pylist()

    def _by_id(self) -> dict[str, int]:
        if self._positions is None:
            self._positions = {row_id: position for position, (row_id,) in enumerate(self.values("id"))}
        return self._positions

    def _record(self, position: int) -> Record:
        table, row = self._row_group(position, image=False)
        return Record.from_row(table.slice(row, 1).to_pylist()[0], partial(self._image, position))

    def _image(self, position: int) -> Image:
        """The image of a row, 8-bit grey ("L"). Fast for rows in order: the row group read last is kept."""
        import io

        from PIL import Image as pil

        table, row = self._row_group(position, image=True)
        if not table.num_columns:
            raise BuildError(
                "this folder holds ids only, no images",
                where=self.path,
                remedy="build the folder from your own copies of the sources",
            )
        data = table.column(0)[row].as_py()["bytes"]
        with pil.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.convert("L") if image.mode != "L" else image.copy()

    def _row_group(self, position: int, *, image: bool) -> tuple[Any, int]:
        """The row group that holds a row, its image column or all others, and the row's place in it."""
        if self._groups is None:
            self._groups, first = [], 0
            for number, file in enumerate(self._parquet()):
                for group in range(file.num_row_groups):
                    self._groups.append((number, group, first))
                    first += file.metadata.row_group(group).num_rows
        found = bisect_right(self._groups, position, key=lambda place: place[2]) - 1
        number, group, first = self._groups[found]
        if image not in self._last or self._last[image][0] != found:
            with self._open(self.files[number]) as file:
                names = [n for n in file.schema_arrow.names if (n == IMAGE_COLUMN) == image]
                self._last[image] = (found, file.read_row_group(group, columns=names))
        return self._last[image][1], position - first

    def _parquet(self) -> Iterator[Any]:
        for path in self.files:
            with self._open(path) as file:
                yield file

    @staticmethod
    def _open(path: Path) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise BuildError(f"this parquet file cannot be read: {error}", where=path) from error


def _check_file(path: Path, size: int) -> None:
    if not path.is_file():
        raise BuildError("this file of the dataset is missing", where=path, remedy="copy or build the folder again")
    if path.stat().st_size != size:
        raise BuildError(
            f"this file has {path.stat().st_size} bytes",
            where=path,
            expected=f"{size} bytes, as the build record says",
            remedy="it was cut off or changed: copy or build the folder again",
        )
