"""The edited images beside verdicts: what the LVLM saw when the filter asked it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medground_bench.causal.cache import edit_key, read_edit
from medground_bench.causal.filter import Asked, edit_request
from medground_bench.causal.masks import box_mask
from medground_bench.causal.verdicts import ANSWERS, HEADER, read_header
from medground_bench.core.errors import MedGroundError, RecordsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from medground_bench.core.schema import Box

__all__ = ["KeptEdits"]


class KeptEdits:
    """The edits that a filter run left in the folder of its verdicts.

    Parameters
    ----------
    verdicts : path
        The folder.
    edits : path, optional
        Where the edits lie, by default ``edits`` inside it.

    Raises
    ------
    RecordsError
        If the folder's header cannot be read.
    """

    def __init__(self, verdicts: str | Path, edits: str | Path | None = None) -> None:
        self.folder = Path(edits) if edits else Path(verdicts) / "edits"
        settings = (read_header(verdicts) or {}).get("settings", {})
        if not isinstance(settings, dict) or not isinstance(settings.get("editor", {}), dict):
            raise RecordsError("this is not the header of a filter run", where=Path(verdicts) / HEADER)
        self._editor, self._seed = settings.get("editor", {}), settings.get("seed", 0)

    def images(self, about: Asked, image: Image, boxes: Sequence[Box]) -> dict[str, Image]:
        """The edits of a record that are there, by the names of :data:`~medground_bench.causal.verdicts.ANSWERS`.

        Parameters
        ----------
        about : Candidate, Record or alike
            What was asked about.
        image : PIL image
            The native radiograph, as the filter read it.
        boxes : sequence of Box
            The evidence.
        """
        out: dict[str, Image] = {}
        try:
            mask = box_mask(boxes, image.size)
        except MedGroundError:  # no box in the image: there was nothing to edit
            return out
        for name in ANSWERS[1:]:
            request = edit_request(name, about, image, mask, self._seed)
            found = read_edit(self.folder, edit_key(request, self._editor), request)
            if found is not None:
                out[name] = found
        return out
