"""Edited images on disk: made once, shared by every LVLM, mode and later run, and open to inspection.

An edit lies at ``ab/abcdef....png`` with ``ab/abcdef....json`` beside it (prompt, seed, editor settings, digests). The
name is the hash of everything that decides the edit. The PNG is written first, so an entry counts only once its JSON
is there; both are renamed into place whole, so several processes may share a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.causal.editors.base import Editor, EditRequest, Progress, image_digest
from medground_bench.core.errors import EditorError
from medground_bench.core.files import atomic_write

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["EditCache", "edit_key", "read_edit"]


def edit_key(request: EditRequest, settings: Mapping[str, Any]) -> str:
    """Hash of what decides an edit: image, mask, prompt, seed and the settings of the editor."""
    editor = json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))
    parts = [request.image_digest, request.mask_digest, request.prompt, request.seed, editor]
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def read_edit(folder: Path, key: str, request: EditRequest) -> Image | None:
    """A kept edit; None if there is none, or it is damaged."""
    from PIL import Image as pil

    png = folder / key[:2] / f"{key}.png"
    try:
        entry = json.loads(png.with_suffix(".json").read_bytes())
        with pil.open(png, formats=["PNG"]) as file:
            file.load()
            image = file.copy()
    except (OSError, ValueError, SyntaxError):  # missing, torn or not a PNG
        return None
    whole = isinstance(entry, dict) and entry.get("edited") == image_digest(image)
    return image if whole and image.size == request.image.size and image.mode == request.image.mode else None


class EditCache:
    """An editor whose results are kept in a folder.

    Parameters
    ----------
    editor : Editor
        Makes what is missing.
    folder : path
        Where edits are kept; made when the first is.

    Attributes
    ----------
    hits, made : int
        Edits found and edits made so far.
    """

    def __init__(self, editor: Editor, folder: str | Path) -> None:
        self.editor = editor
        self.folder = Path(folder)
        self.hits = 0
        self.made = 0

    def key(self, request: EditRequest) -> str:
        """Hash of what decides an edit: image, mask, prompt, seed and the editor's settings."""
        return edit_key(request, self.editor.settings)

    def path(self, request: EditRequest) -> Path:
        """Where an edit's PNG lies, made or not."""
        key = self.key(request)
        return self.folder / key[:2] / f"{key}.png"

    def edit_batch(
        self, requests: Sequence[EditRequest], *, progress: Progress | None = None
    ) -> list[Image | EditorError]:
        """As :meth:`Editor.edit_batch`, reading what is there and keeping what is made. Failures are not kept."""
        keys = [self.key(request) for request in requests]
        known: dict[str, Image | EditorError] = {}
        missing: dict[str, EditRequest] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in known or key in missing:
                continue
            image = read_edit(self.folder, key, request)
            if image is None:
                missing[key] = request
            else:
                known[key] = image
        made = self.editor.edit_batch(list(missing.values()), progress=progress) if missing else []
        for (key, request), outcome in zip(missing.items(), made, strict=True):
            known[key] = outcome
            if not isinstance(outcome, EditorError):
                self._write(key, request, outcome)
        self.made += len(missing)
        self.hits += len(requests) - len(missing)
        return [known[key] for key in keys]

    def _write(self, key: str, request: EditRequest, image: Image) -> None:
        png = self.folder / key[:2] / f"{key}.png"
        with atomic_write(png, "wb") as file:
            image.save(file, format="PNG", compress_level=4)
        entry: dict[str, Any] = {
            "prompt": request.prompt,
            "seed": request.seed,
            "image": request.image_digest,
            "mask": request.mask_digest,
            "mask_share": round(float(request.mask.mean()), 6),
            "edited": image_digest(image),
            "editor": dict(self.editor.settings),
        }
        with atomic_write(png.with_suffix(".json")) as file:
            json.dump(entry, file, indent=1)
            file.write("\n")
