"""The candidates that flow through the project, their ids and questions.

A file on disk becomes a :class:`Candidate` in ``sources``; the causal filter or the released verdicts turn
it into a :class:`KeptCandidate`; a dataset folder holds that as a record, the unit of the benchmark. Boxes are
``(x1, y1, x2, y2)`` floats, half-open, in pixels of the native image, everywhere.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DATASETS",
    "GATES",
    "LVLMS",
    "MODES",
    "Box",
    "Candidate",
    "KeptCandidate",
    "Mask",
    "Mode",
    "candidate_id",
    "masked_id",
    "question",
    "record_id",
]

Box = tuple[float, float, float, float]
Mode = Literal["direct", "reason"]

MODES: tuple[Mode, ...] = ("direct", "reason")

DATASETS: tuple[str, ...] = (
    "imagenome",
    "vindr_cxr",
    "padchest_gr",
    "nih_cxr14",
    "chestx_det",
    "rsna",
    "phantom",
    "planted",
)
"""Keys of the sources that come with the project; the first three make up the released benchmark."""

LVLMS: dict[str, str] = {
    "qwen2_5_vl_3b": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen2_5_vl_7b": "Qwen/Qwen2.5-VL-7B-Instruct",
    "gemma3_4b": "google/gemma-3-4b-it",
    "gemma3_12b": "google/gemma-3-12b-it",
    "medgemma_4b": "google/medgemma-4b-it",
    "medgemma1_5_4b": "google/medgemma-1.5-4b-it",
}
"""The six LVLMs of the benchmark: key in the released records -> hub id."""

GATES: tuple[str, ...] = ("correct", "foreground", "background", "background_normal")
"""The gates of the causal filter, in the order of the four questions (paper, section 3.2)."""

_QUESTION = "Is there evidence of {attribute} in the image?"
_SUFFIX: dict[str, str] = {
    "direct": " Answer directly with yes or no without any explanation.",
    "reason": " Think step by step and answer with yes or no.",
}


def question(attribute: str, mode: str | None = None) -> str:
    """The benchmark's question for an attribute.

    Parameters
    ----------
    attribute : str
        The finding, as its source names it.
    mode : {"direct", "reason"}, optional
        Adds the mode's suffix; without it the bare question is returned (a candidate has no mode yet).

    Raises
    ------
    ValueError
        If the mode is unknown.
    """
    if mode is not None and mode not in _SUFFIX:
        raise ValueError(f"unknown mode {mode!r}: expected one of {', '.join(MODES)}")
    return _QUESTION.format(attribute=attribute) + (_SUFFIX[mode] if mode else "")


class Mask(Protocol):
    """The exact outline of a finding; pixels are computed when they are asked for."""

    def raster(self) -> np.ndarray:
        """(H, W) bool array over the native image."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One binary question about one image, with the expert's evidence boxes, before any filter.

    Attributes
    ----------
    index : int
        Position in the source's enumeration: what the released records refer to.
    dataset : str
        Key of the source.
    image_id, patient_id : str
        As the source names them (``patient_id`` falls back to ``image_id``).
    attribute : str
        The finding asked for.
    boxes : tuple of Box
        Valid evidence boxes, native pixels, half-open. Empty when every box of the group is broken.
    image_path : Path
        The image file, inside the source's root.
    problems : tuple of str
        What was wrong with the rows behind this candidate (file, row and reason), empty when nothing was.
    ordinal : int
        1, or 2, 3, ... for the second, third, ... candidate of the same image and attribute (PadChest-GR has
        such findings): it keeps ids unique.
    size : (width, height) or None
        Size of the image that the boxes are stated on, where the source states one. A file of another size is a
        resized copy, to which the boxes do not apply.
    masks : tuple of Mask
        Exact outlines, one a box and in the boxes' order; empty where the source has boxes only.
    regions : tuple of str
        The source's own name of the anatomical region of each box, in the boxes' order; empty where it has none.
    sex : {"M", "F", "O"} or None
        Of the patient, where the source says so.
    age : int or None
        In whole years.
    view : str or None
        Projection, ``"PA"`` or ``"AP"``.
    """

    index: int
    dataset: str
    image_id: str
    patient_id: str
    attribute: str
    boxes: tuple[Box, ...]
    image_path: Path
    problems: tuple[str, ...] = ()
    ordinal: int = 1
    size: tuple[int, int] | None = None
    masks: tuple[Mask, ...] = ()
    regions: tuple[str, ...] = ()
    sex: str | None = None
    age: int | None = None
    view: str | None = None

    @property
    def id(self) -> str:
        return candidate_id(self.dataset, self.image_id, self.attribute, self.ordinal)


@dataclass(frozen=True, slots=True)
class KeptCandidate:
    """A candidate that passed the causal filter for one LVLM in one mode.

    ``response`` is the LVLM's stored greedy answer to the original image, as it stands (it may end in a
    full stop or newline): the text whose evidence is attributed. The other predictions are the answers to the
    foreground edit, the background edit and the background edit to "no abnormality".
    """

    model: str
    mode: str
    candidate: Candidate
    response: str
    prediction_edited: str
    prediction_edited_kept: str
    prediction_edited_kept_normal: str
    answer: str = "Yes"

    @property
    def id(self) -> str:
        c = self.candidate
        return record_id(self.model, self.mode, c.dataset, c.image_id, c.attribute, c.ordinal)

    @property
    def question(self) -> str:
        return question(self.candidate.attribute, self.mode)


def candidate_id(dataset: str, image_id: str, attribute: str, ordinal: int = 1) -> str:
    """Stable key of a candidate: independent of its position in any enumeration."""
    key = f"{dataset}/{image_id}/{attribute}"
    return key if ordinal == 1 else f"{key}#{ordinal}"


def record_id(model: str, mode: str, dataset: str, image_id: str, attribute: str, ordinal: int = 1) -> str:
    """Stable key of a record."""
    return f"{model}/{mode}/{candidate_id(dataset, image_id, attribute, ordinal)}"


def masked_id(row_id: str, key: bytes) -> str:
    """The id of a row that may not be told, for it names the finding: ``"hmac:"`` and 64 hex digits (HMAC-SHA256).

    Who has the key can compute it and compare; who has not cannot try out ids.
    """
    return "hmac:" + hmac.new(key, row_id.encode(), hashlib.sha256).hexdigest()
