"""Localisations on disk: an image shared by many records is segmented once.

The cache lives in the user's cache folder (:func:`medground_bench.core.files.cache_folder`), never beside the data. One
small file per image, pool, settings and refiner, written atomically, so that processes may share it; a damaged file
counts as absent.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from medfocus.result import FRAME, Found, Transfer
from medground_bench.core.files import atomic_write, cache_folder

__all__ = ["LocalisationCache", "default_cache"]


def default_cache() -> Path:
    """The user's folder for cached localisations."""
    return cache_folder("localisations")


class LocalisationCache:
    """Transfers by key in a folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"

    def get(self, key: str) -> Transfer | None:
        """The transfer kept under a key, None if there is none or its file is damaged."""
        path = self._path(key)
        try:
            # Opened here, since NumPy leaves a damaged archive open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                content = json.loads(bytes(stored["json"]).decode())
                bits = np.unpackbits(stored["masks"], axis=-1, count=FRAME * FRAME).astype(bool)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        return _decoded(content, bits)

    def put(self, key: str, transfer: Transfer) -> None:
        """Keep a transfer; a folder that cannot be written is the same as no cache."""
        masks = [np.packbits(found.mask.reshape(-1)) for found in transfer.concepts.values()]
        content = {
            "boxes": {concept: list(found.box) for concept, found in transfer.concepts.items()},
            "reference": transfer.reference,
            "details": dict(transfer.details),
        }
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
        stacked = np.stack(masks) if masks else np.zeros((0, FRAME * FRAME // 8), np.uint8)
        try:
            with atomic_write(self._path(key), "wb") as file:
                np.savez_compressed(file, json=text, masks=stacked)
        except OSError:
            return


def _decoded(content: Any, bits: np.ndarray) -> Transfer | None:
    try:
        found = {}
        for (concept, box), mask in zip(content["boxes"].items(), bits, strict=True):
            x1, y1, x2, y2 = box
            found[concept] = Found((x1, y1, x2, y2), mask.reshape(FRAME, FRAME))
        return Transfer(found, content["reference"], content["details"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
