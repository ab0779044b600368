"""Dataset folders of made-up records, for benchmarks that need many."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medground_bench.core.files import sha256_of
from medground_bench.core.schema import question, record_id
from medground_bench.dataset.columns import fingerprint

ATTRIBUTES = ("cardiomegaly", "pleural effusion", "lung nodule")
_BATCH, _BATCHES = 64, 128  # rows of a group, groups of a file


def made_up_row(
    number: int, lvlm: str, image: bytes, size: tuple[int, int], box: Sequence[float], *, patient: int
) -> dict[str, Any]:
    """One verified record of the mode ``direct`` with an image (PNG) of a size and one box."""
    attribute = ATTRIBUTES[number % len(ATTRIBUTES)]
    name = f"image-{number:07d}"
    return {
        "id": record_id(lvlm, "direct", "phantom", name, attribute),
        "dataset": "phantom",
        "model": lvlm,
        "mode": "direct",
        "image": {"bytes": image, "path": None},
        "image_id": name,
        "patient_id": f"patient-{patient}",
        "width": size[0],
        "height": size[1],
        "attribute": attribute,
        "question": question(attribute, "direct"),
        "answer": "Yes",
        "response": "Yes",
        "boxes": [list(box)],
        **dict.fromkeys(("prediction", "prediction_edited_kept", "prediction_edited_kept_normal"), "Yes"),
        "prediction_edited": "No",
    }


def write_dataset(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write the rows, in groups and files as they come, as a dataset folder with the config ``direct``."""
    rows, said, files = iter(rows), [], {}
    (folder / "direct").mkdir(parents=True)
    for number in itertools.count():
        batches = itertools.takewhile(len, (list(itertools.islice(rows, _BATCH)) for _ in range(_BATCHES)))
        if (first := next(batches, None)) is None:
            break
        file = folder / "direct" / f"test-{number:05d}.parquet"
        with pq.ParquetWriter(file, pa.Table.from_pylist(first).schema) as writer:
            for batch in itertools.chain([first], batches):
                writer.write_table(pa.Table.from_pylist(batch, schema=writer.schema))
                said += [{name: value for name, value in row.items() if name != "image"} for row in batch]
        files[str(file.relative_to(folder))] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    if not said:
        raise ValueError("no rows")
    entry = {"rows": len(said), "fingerprint": fingerprint(said), "files": files}
    (folder / "build.json").write_text(json.dumps({"format": 1, "versions": {}, "configs": {"direct": entry}}))
    return folder
