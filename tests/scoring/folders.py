"""Small dataset folders and submissions for the tests, in the layout that ``medground-bench build`` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medground_bench.core.files import sha256_of
from medground_bench.core.schema import question, record_id
from medground_bench.dataset.columns import fingerprint
from medground_bench.submission import write_submission


def make_rows(
    n: int = 12,
    *,
    lvlms: tuple[str, ...] = ("tiny_a", "tiny_b"),
    mode: str = "direct",
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """``n`` records per LVLM on shared images, two images per patient, wide images unless a size is given."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(n):
        width, height = size or (int(rng.integers(1200, 2600)), int(rng.integers(600, 1100)))
        boxes = []
        for _ in range(int(rng.integers(1, 4))):
            w, h = rng.integers(40, width // 2), rng.integers(40, height // 2)
            x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            boxes.append([float(x), float(y), float(x + w), float(y + h)])
        dataset = ("imagenome", "vindr_cxr")[k // 2 % 2]
        attribute = ("Cardiomegaly", "Effusion", "Nodule")[k % 3]
        for lvlm in lvlms:
            rows.append(
                {
                    "id": record_id(lvlm, mode, dataset, f"img{k:03d}", attribute),
                    "dataset": dataset,
                    "model": lvlm,
                    "mode": mode,
                    "image_id": f"img{k:03d}",
                    "patient_id": f"pat{k // 2:03d}",
                    "width": width,
                    "height": height,
                    "attribute": attribute,
                    "question": question(attribute, mode),
                    "answer": "Yes",
                    "response": "Yes",
                    "boxes": boxes,
                }
            )
    return rows


def write_folder(path: Path, rows: list[dict[str, Any]], config: str = "direct") -> Path:
    """A dataset folder with one config, without images."""
    file = path / config / "test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), file)
    name = str(file.relative_to(path))
    entry = {
        "rows": len(rows),
        "fingerprint": fingerprint(rows),
        "files": {name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}},
    }
    (path / "build.json").write_text(json.dumps({"format": 1, "versions": {}, "configs": {config: entry}}))
    return path


def header(rows: list[dict[str, Any]], lvlm: str = "tiny_a", method: str = "oracle", **more: Any) -> dict[str, Any]:
    """A complete ``submission.json`` for these rows."""
    return {
        "method": method,
        "lvlm": lvlm,
        "mode": rows[0]["mode"],
        "lvlm_revision": "local",
        "dataset_fingerprint": fingerprint(rows),
        "settings": {"frame_side": 224},
        "seed": 0,
        "versions": {"medground-bench": "0"},
        "authors": "A. Tester",
        "licence": "CC-BY-4.0",
        "created": "2026-01-01T00:00:00+00:00",
        **more,
    }


def perfect(rows: list[dict[str, Any]], lvlm: str = "tiny_a") -> list[dict[str, Any]]:
    """Predictions that are the evidence itself."""
    return [{"id": row["id"], "boxes": row["boxes"]} for row in rows if row["model"] == lvlm]


def write_perfect(path: Path, rows: list[dict[str, Any]], lvlm: str = "tiny_a", method: str = "oracle") -> Path:
    """A submission that is right everywhere."""
    return write_submission(path, header(rows, lvlm, method), perfect(rows, lvlm))
