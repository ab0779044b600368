"""The dataset folder: what ``medground-bench build`` writes and ``load_dataset`` opens.

``README.md`` (the card with the configs), ``{config}/test-*.parquet`` with embedded images, and ``build.json``, the
build record: versions, settings, checksums, the fingerprint of each config, and what was left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import BuildError
from medground_bench.core.schema import fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["BUILD_RECORD", "FORMAT", "DatasetFolder", "open_folder", "read_build_record"]

BUILD_RECORD = "build.json"
FORMAT = 1
IMAGE_COLUMN = "image"


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
            remedy="build it into this folder with 'medground-bench build --config ...'",
        )
    return DatasetFolder(path, config, record)


class DatasetFolder:
    """One config of a dataset folder, read as a stream; only the columns that are asked for are read.

    Attributes
    ----------
    path : Path
        The folder.
    config : str
        Name of the config.
    fingerprint : str
        Fingerprint of its rows, as recorded (see :func:`medground_bench.core.schema.fingerprint`).
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
        self._places: dict[str, tuple[int, int, int]] | None = None  # id -> file, row group, row in it
        self._group: tuple[tuple[int, int], Any] | None = None  # the row group read last, and its images

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"DatasetFolder({str(self.path)!r}, {self.config!r}, {len(self)} rows)"

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Rows in order, as dicts without the image (or with the named columns only).

        Boxes are lists of ``[x1, y1, x2, y2]``.
        """
        for file in self._parquet():
            names = [n for n in file.schema_arrow.names if n != IMAGE_COLUMN] if columns is None else list(columns)
            for batch in file.iter_batches(batch_size=512, columns=names):
                yield from batch.to_pylist()

    def image(self, row_id: str) -> Image:
        """The image of a row, 8-bit grey ("L"). Fast for rows in order: the row group read last is kept.

        Raises
        ------
        BuildError
            If there is no such row, or the folder was published without images.
        """
        import io

        from PIL import Image as pil

        self._places = self._places if self._places is not None else self._find_rows()
        if row_id not in self._places:
            raise BuildError(f"there is no row {row_id!r}", where=self.path / self.config)
        number, group, row = self._places[row_id]
        if self._group is None or self._group[0] != (number, group):
            with self._open(self.files[number]) as file:
                if IMAGE_COLUMN not in file.schema_arrow.names:
                    raise BuildError(
                        "this folder holds ids only, no images",
                        where=self.path,
                        remedy="build the folder from your own copies of the sources",
                    )
                self._group = ((number, group), file.read_row_group(group, columns=[IMAGE_COLUMN]).column(0))
        data = self._group[1][row].as_py()["bytes"]
        with pil.open(io.BytesIO(data), formats=("PNG",)) as image:
            return image.convert("L") if image.mode != "L" else image.copy()

    def verify(self) -> None:
        """Recompute checksums and fingerprint.

        Raises
        ------
        BuildError
            If a file or the rows are not what the build record says.
        """
        from medground_bench.dataset.plan import sha256

        for name, facts in self.build["configs"][self.config]["files"].items():
            if sha256(self.path / name) != facts["sha256"]:
                raise BuildError("the file is damaged: its checksum differs", where=self.path / name)
        if fingerprint(self.rows()) != self.fingerprint:
            raise BuildError("the rows are not those of the build record", where=self.path / self.config)

    def _find_rows(self) -> dict[str, tuple[int, int, int]]:
        places = {}
        for number, file in enumerate(self._parquet()):
            for group in range(file.num_row_groups):
                for row, row_id in enumerate(file.read_row_group(group, columns=["id"]).column(0).to_pylist()):
                    places[row_id] = (number, group, row)
        return places

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
