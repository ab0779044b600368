"""One method on one image: what a notebook asks for, with a picture and the scores of the answer."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as pil

from medground_bench.attribution.method import MethodLike, as_method
from medground_bench.attribution.picture import draw
from medground_bench.core.errors import MedGroundError, MethodError
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import Box
from medground_bench.dataset.columns import Record
from medground_bench.imaging import Letterbox, clip_boxes
from medground_bench.imaging.overlap import score_boxes
from medground_bench.imaging.read import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.attribution.results import Attribution
    from medground_bench.lvlm import Lvlm

__all__ = ["AttributionResult", "attribute"]


@dataclass(frozen=True)
class AttributionResult:
    """What a method said about one image.

    Attributes
    ----------
    attribution : Attribution
        Boxes in native pixels, heat map, concept and token scores.
    method : str
        Name of the method.
    image : PIL image
        The native image.
    letterbox : Letterbox
        Native pixels <-> the frame that heat maps lie over.
    question, response : str
        What was asked and what the LVLM had said.
    evidence : tuple of Box or None
        The expert's boxes, where they are known.
    tokens : tuple of str
        The response's tokens, those of ``attribution.token_scores``.
    id : str or None
        Of the record.
    """

    attribution: Attribution
    method: str
    image: Image
    letterbox: Letterbox
    question: str
    response: str
    evidence: tuple[Box, ...] | None = None
    tokens: tuple[str, ...] = ()
    id: str | None = None

    @property
    def boxes(self) -> list[Box]:
        """The method's boxes, native pixels."""
        return self.attribution.boxes

    @property
    def heatmap(self) -> np.ndarray | None:
        """The heat map over the native image, (height, width) float32; None where the method made none."""
        heat = self.attribution.heatmap
        return None if heat is None else self.letterbox.heatmap_to_native(heat)

    def score(self, evidence: Sequence[Sequence[float]] | None = None) -> dict[str, float]:
        """IoU, precision, recall and F1 of the boxes against evidence, fractions.

        Parameters
        ----------
        evidence : sequence of [x1, y1, x2, y2], optional
            Native pixels, cut to the image; by default the record's.

        Raises
        ------
        MedGroundError
            If there is no evidence to score against.
        GeometryError
            If a box of it does not have four finite numbers.
        """
        reference = self.evidence if evidence is None else evidence
        if reference is None:
            raise MedGroundError(
                "there is no evidence to score against",
                where=self.id,
                remedy="give score([[x1, y1, x2, y2], ...]) in native pixels, or attribute a record",
            )
        scores = score_boxes([self.boxes], [clip_boxes(reference, *self.image.size)])
        return {name: float(values[0]) for name, values in scores._asdict().items()}

    def plot(self, path: str | Path | None = None) -> Image:
        """Image, heat map, evidence and boxes, all in native pixels, with question and answer below.

        Parameters
        ----------
        path : path, optional
            Where to write it; the ending says as what (``.png``, ``.jpg``, ...).

        Returns
        -------
        PIL image
            Mode "RGB". The image itself is at its top left, enlarged by a whole number where it is small.

        Raises
        ------
        MedGroundError
            If the ending names no picture format.
        """
        picture = draw(
            self.image,
            self.boxes,
            self.evidence or (),
            None if self.attribution.degenerate else self.heatmap,
            self._caption(),
        )
        if path is not None:
            path = Path(path).expanduser()
            kind = pil.registered_extensions().get(path.suffix.lower())
            if kind not in pil.SAVE:
                raise MedGroundError(f"{path.suffix!r} is no picture format", where=path, expected=".png or .jpg")
            with atomic_write(path, "wb") as file:
                picture.save(file, kind)
        return picture

    def _caption(self) -> list[str]:
        said = self.attribution
        notes = [name for name in ("fallback", "degenerate") if getattr(said, name)]
        concept = f", concept: {said.concept}" if said.concept else ""
        count = f"{len(said.boxes)} box{'' if len(said.boxes) == 1 else 'es'}"
        lines = [self.question, f"LVLM: {' '.join(self.response.split())}"]
        lines.append(f"{self.method}: {count}{concept}{''.join(f' ({n})' for n in notes)}")
        if self.evidence is not None:
            lines.append(" · ".join(f"{_TITLES[name]} {value:.3f}" for name, value in self.score().items()))
        return lines

    def __repr__(self) -> str:
        scores = "" if self.evidence is None else f", IoU {self.score()['iou']:.3f}"
        return f"AttributionResult({self.method!r}, {self.id or 'image'!r}, {len(self.boxes)} boxes{scores})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture, the scores and the response's tokens, everything escaped."""
        stream = io.BytesIO()
        self.plot().save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        parts = [f'<img alt="{html.escape(self.method)}" style="max-width:640px" src="data:image/png;base64,{data}">']
        if self.attribution.token_scores is not None and len(self.tokens) == len(self.attribution.token_scores):
            parts.append(f"<p>{_coloured(self.tokens, self.attribution.token_scores)}</p>")
        if self.attribution.concept_scores:
            ranked = sorted(self.attribution.concept_scores.items(), key=lambda item: -item[1])
            rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{value:.3f}</td></tr>" for name, value in ranked)
            parts.append(f"<table><tr><th>concept</th><th>score</th></tr>{rows}</table>")
        return "\n".join(parts)


_TITLES: Mapping[str, str] = {"iou": "IoU", "precision": "precision", "recall": "recall", "f1": "F1"}


def _coloured(tokens: Sequence[str], scores: np.ndarray) -> str:
    """Tokens on a background as strong as their score's share of the largest."""
    top = float(np.abs(scores).max()) or 1.0
    spans = []
    for token, score in zip(tokens, scores.tolist(), strict=True):
        colour = "246,112,25" if score >= 0 else "70,130,220"
        spans.append(
            f'<span style="background:rgba({colour},{abs(score) / top:.2f})" title="{score:.3f}">'
            f"{html.escape(token)}</span>"
        )
    return "".join(spans)


def attribute(
    target: Record | Image | np.ndarray | str | Path,
    method: MethodLike,
    lvlm: Lvlm,
    /,
    *,
    question: str | None = None,
    response: str | None = None,
    side: int | None = 224,
    **options: Any,
) -> AttributionResult:
    """Attribute an LVLM's response to the parts of one image.

    Parameters
    ----------
    target : Record, PIL image, array or path
        A record of a dataset folder, or any picture: a file in any format that the sources use (DICOM among them), or
        pixels, (H, W) or (H, W, 3) uint8.
    method : str, Method or function
        A registered name, a method, or a function ``(lvlm, episode, **options)`` that returns a heat map or boxes (see
        :mod:`medground_bench.attribution.results`).
    lvlm : Lvlm
        The model whose response it is.
    question, response : str, optional
        What was asked and what the LVLM said; by default the record's.
    side : int or None
        Side of the letterboxed frame in pixels; None feeds the native image.
    **options
        Parameters of the method.

    Returns
    -------
    AttributionResult

    Raises
    ------
    MethodError
        If the method or an option is unknown, or it returned something else.
    MedGroundError
        If question or response are missing, the record is of another LVLM, or the image cannot be read.

    Examples
    --------
    >>> import medground_bench as mgb
    >>> from medground_bench.sources.phantom import sample_phantom
    >>> picture = sample_phantom(7, size=224, findings=["pleural effusion"]).image
    >>> def centre(lvlm, episode, share=0.5):
    ...     w, h = episode.image.size
    ...     return [[w * (1 - share) / 2, h * (1 - share) / 2, w * (1 + share) / 2, h * (1 + share) / 2]]
    >>> lvlm = mgb.load_lvlm("toy_qwen")
    >>> result = mgb.attribute(picture, centre, lvlm, question="Is there an effusion?", response="Yes", share=0.25)
    >>> result.boxes
    [(84.0, 84.0, 140.0, 140.0)]
    >>> round(result.score([[84, 84, 140, 112]])["iou"], 3)
    0.5
    """
    found = as_method(method)
    parameters = found.make_parameters(options)
    record = target if isinstance(target, Record) else None
    if record is not None and response is None and record.model not in (None, lvlm.key):
        raise MedGroundError(
            f"this record holds the response of {record.model}, not of {lvlm.key}",
            where=record.id,
            remedy=f"choose one of {lvlm.key} ([r for r in records if r.model == {lvlm.key!r}]), or give response=",
        )
    question = question if question is not None or record is None else record.question
    response = response if response is not None or record is None else record.response
    if question is None or response is None:
        raise MedGroundError(
            "a question and the LVLM's response to it are needed",
            where=record.id if record else None,
            remedy="give question= and response=; lvlm.generate([image], [question]) asks the LVLM",
        )
    image = _image(target)
    episode = lvlm.prepare(image, question, response, side=side)
    return AttributionResult(
        attribution=found.run(lvlm, episode, parameters),
        method=found.name,
        image=image,
        letterbox=episode.letterbox,
        question=question,
        response=response,
        evidence=record.boxes if record else None,
        tokens=tuple(token.text for token in episode.tokens),
        id=record.id if record else None,
    )


def _image(target: Record | Image | np.ndarray | str | Path) -> Image:
    """The native image of whatever was given."""
    if isinstance(target, Record):
        return target.image
    if isinstance(target, str | Path):
        return read_image(Path(target).expanduser())
    if isinstance(target, pil.Image):
        return target
    if isinstance(target, np.ndarray) and target.dtype == np.uint8 and target.ndim in (2, 3):
        return pil.fromarray(target)
    raise MethodError(
        f"{type(target).__name__} is no image", expected="a Record, a PIL image, a file, or (H, W[, 3]) uint8 pixels"
    )
