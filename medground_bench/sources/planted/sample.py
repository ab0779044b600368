"""Planting: canvas, anatomy and seed -> image, findings and masks, and the same canvas without a finding."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medground_bench.core.errors import SourceError
from medground_bench.core.schema import Box
from medground_bench.sources.planted.anatomy import SIDES, CanvasAnatomy, Field, Mask, mask_box
from medground_bench.sources.planted.canvas import VISIBLE, Canvas, Window, attenuation, display
from medground_bench.sources.planted.distractors import DISTRACTORS, draw_distractor
from medground_bench.sources.planted.findings import DRAWING_ORDER, FINDINGS, draw

__all__ = ["Distractor", "Finding", "Planted", "plant"]

_TRIES = 4
_OVERLAP = 0.12  # share of a finding that may lie on others
_CONTRAST = 8  # grey levels: a finding that changes no pixel by that much is not seen
_COUNTS = (0.45, 0.35, 0.20)  # chance of one, two, three findings
_WEIGHTS = {
    "cardiomegaly": 0.6,
    "aortic enlargement": 0.4,
    "hilar enlargement": 0.8,
    "consolidation": 2.2,
    "atelectasis": 1.2,
    "lung mass": 1.1,
    "nodule": 1.0,
    "pneumothorax": 1.0,
    "pleural effusion": 1.4,
    "interstitial pattern": 0.6,
    "clavicle fracture": 0.4,
    "rib fracture": 0.5,
}


@dataclass(frozen=True, eq=False)
class Finding:
    """A planted finding.

    Attributes
    ----------
    attribute : str
        One of :data:`FINDINGS`.
    side : {"left", "right", "both", None}
        The patient's side; None for the heart and the aorta.
    zone : {"upper", "mid", "lower", None}
        Third of the lung; None for the heart.
    location : str
        Anatomical phrase.
    concept : str
        The anatomical concept that holds it best; the composite group when it is on both sides.
    mask : bool array, shape (H, W)
        Where the canvas is changed by at least :data:`~medground_bench.sources.planted.canvas.VISIBLE` grey levels
        (small gaps closed). Nothing changes outside.
    boxes : tuple of Box
        Tight half-open boxes of the mask, one per lesion.
    """

    attribute: str
    side: str | None
    zone: str | None
    location: str
    concept: str
    mask: Mask
    boxes: tuple[Box, ...]


@dataclass(frozen=True, eq=False)
class Distractor:
    """A planted thing that no question asks about: its kind, its mask, shape (H, W), and its box."""

    kind: str
    mask: Mask
    box: Box


@dataclass(frozen=True, eq=False)
class _Layer:
    """A change of attenuation, zero outside its mask."""

    pieces: tuple[tuple[Window, Field, Mask], ...]

    def mask(self, shape: tuple[int, ...]) -> Mask:
        out = np.zeros(shape, bool)
        for window, _, mask in self.pieces:
            out[window.rows, window.columns] |= mask
        return out


class Planted:
    """A canvas with findings. Made by :func:`plant`.

    Attributes
    ----------
    canvas : uint8 array, shape (H, W)
        The radiograph as it was given.
    findings : tuple of Finding
        What is planted, in the order of :data:`FINDINGS`.
    distractors : tuple of Distractor
        What else is planted; it stays when findings are taken away.
    omitted : tuple of str
        Findings that were drawn by chance and had no room in this chest.
    """

    def __init__(
        self,
        canvas: NDArray[np.uint8],
        findings: tuple[Finding, ...],
        distractors: tuple[Distractor, ...],
        omitted: tuple[str, ...],
        layers: dict[str, _Layer],
        things: tuple[_Layer, ...],
    ) -> None:
        self.canvas = canvas
        self.findings = findings
        self.distractors = distractors
        self.omitted = omitted
        self._layers = layers
        self._things = things

    def __repr__(self) -> str:
        height, width = self.canvas.shape
        return f"Planted({width}x{height}, {self.attributes}, distractors={tuple(d.kind for d in self.distractors)})"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The findings that are planted."""
        return tuple(finding.attribute for finding in self.findings)

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The radiograph with everything planted, uint8, (H, W): equal to the canvas outside all masks."""
        total = np.zeros(self.canvas.shape, np.float32)
        changed = np.zeros(self.canvas.shape, bool)
        for layer in (*self._layers.values(), *self._things):
            for window, delta, mask in layer.pieces:
                total[window.rows, window.columns] += delta
                changed[window.rows, window.columns] |= mask
        out = self.canvas.copy()
        out[changed] = display(attenuation(self.canvas[changed]) + total[changed])
        out.flags.writeable = False
        return out

    def without(self, attribute: str | None = None) -> Planted:
        """The same canvas and distractors without one finding (without all of them when None).

        Raises
        ------
        SourceError
            If that finding is not planted.
        """
        if attribute is not None and attribute not in self._layers:
            raise SourceError(
                f"no {attribute!r} is planted here",
                expected=f"one of {', '.join(self.attributes) or 'nothing (this is a canvas)'}",
            )
        kept = tuple(f for f in self.findings if attribute is not None and f.attribute != attribute)
        layers = {f.attribute: self._layers[f.attribute] for f in kept}
        return Planted(self.canvas, kept, self.distractors, self.omitted, layers, self._things)


def plant(
    canvas: NDArray[np.uint8],
    anatomy: CanvasAnatomy,
    seed: int,
    findings: Sequence[str] | None = None,
    distractors: bool | Sequence[str] = (),
    *,
    among: Sequence[str] = FINDINGS,
) -> Planted:
    """Draw findings into a radiograph.

    The same canvas and seed give the same image. A finding looks the same whichever others can be taken away again,
    and outside the masks every pixel is the canvas's own.

    Parameters
    ----------
    canvas : uint8 array, shape (H, W)
        A frontal radiograph without the findings, dense tissue bright, any size.
    anatomy : CanvasAnatomy
        Of this radiograph, found at any resolution.
    seed : int
        Not negative.
    findings : sequence of str, optional
        Plants exactly these (names of :data:`FINDINGS`; empty for none). By default one to three are drawn by chance,
        and those that find no room are left out (``Planted.omitted``).
    distractors : bool or sequence of str
        Kinds of :data:`~medground_bench.sources.planted.distractors.DISTRACTORS` to plant; True draws up to three.
    among : sequence of str
        What ``findings=None`` draws from.

    Raises
    ------
    SourceError
        If the canvas, the seed or a name is not one, or a finding that was asked for has no room in this chest.
    """
    if seed < 0:
        raise SourceError(f"seed {seed} is negative", expected="an integer from 0")
    ground = Canvas(canvas, anatomy)
    key = [int(seed), zlib.crc32(canvas.tobytes())]
    if findings is None:
        wanted = _drawn(_stream(key, "presence"), _known(among, FINDINGS, "finding"))
    else:
        wanted = _known(findings, FINDINGS, "finding")
    if isinstance(distractors, bool):
        rng = _stream(key, "distractors")
        kinds = rng.choice(DISTRACTORS, int(rng.integers(4)), replace=False).tolist() if distractors else []
    else:
        kinds = _known(distractors, DISTRACTORS, "distractor")

    taken = np.zeros(anatomy.shape, bool)
    layers: dict[str, _Layer] = {}
    made: dict[str, Finding] = {}
    omitted = []
    for attribute in (f for f in DRAWING_ORDER if f in wanted):
        one = _one(attribute, ground, taken, key)
        if one is None:
            omitted.append(attribute)
            continue
        made[attribute], layers[attribute] = one
        taken |= _coarse(made[attribute].mask, anatomy.shape)
    if omitted and findings is not None:
        raise SourceError(
            f"{' and '.join(omitted)} would fall outside the lungs or on another finding",
            expected="a chest with room for every finding that is asked for",
            remedy="ask for fewer findings, or take another canvas or seed",
        )
    things = {kind: _thing(kind, ground, _stream(key, kind)) for kind in kinds}
    order = tuple(f for f in FINDINGS if f in made)
    return Planted(
        canvas,
        tuple(made[f] for f in order),
        tuple(thing for thing, _ in things.values()),
        tuple(omitted),
        {f: layers[f] for f in order},
        tuple(layer for _, layer in things.values()),
    )


def _stream(key: list[int], name: str, attempt: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*key, zlib.crc32(name.encode()), attempt])))


def _drawn(rng: np.random.Generator, among: list[str]) -> list[str]:
    if not among:
        raise SourceError("there is no finding to draw from", expected=f"some of {', '.join(FINDINGS)}")
    weights = np.array([_WEIGHTS[f] for f in among])
    count = min(1 + int(rng.choice(len(_COUNTS), p=_COUNTS)), len(among))
    return [str(f) for f in rng.choice(among, count, replace=False, p=weights / weights.sum())]


def _known(names: Sequence[str], all_names: Sequence[str], what: str) -> list[str]:
    if unknown := sorted(set(names) - set(all_names)):
        raise SourceError(f"unknown {what} {unknown[0]!r}", expected=f"one of {', '.join(all_names)}")
    return list(dict.fromkeys(names))


def _one(attribute: str, canvas: Canvas, taken: Mask, key: list[int]) -> tuple[Finding, _Layer] | None:
    """One finding where it can be seen and is not on another; None where a few tries found no such place."""
    for attempt in range(_TRIES):
        drawing = draw(attribute, canvas, taken, _stream(key, attribute, attempt))
        if drawing is None:
            continue
        pieces = [_piece(canvas, window, delta) for window, delta in drawing.lesions]
        if any(piece is None for piece in pieces):
            continue
        layer = _Layer(tuple(piece for piece in pieces if piece is not None))
        mask = layer.mask(canvas.pixels.shape)
        coarse = _coarse(mask, taken.shape)
        if (coarse & taken).sum() > _OVERLAP * coarse.sum():
            continue
        side = None if not drawing.sides else "both" if len(drawing.sides) == 2 else SIDES[drawing.sides[0]]
        boxes = tuple(_native_box(window, mask) for window, _, mask in layer.pieces)
        return Finding(attribute, side, drawing.zone, drawing.location, drawing.concept, mask, boxes), layer
    return None


def _piece(canvas: Canvas, window: Window, delta: Field) -> tuple[Window, Field, Mask] | None:
    """A lesion cut off where it is not seen, in the smallest window; None where it is not seen at all."""
    before = canvas.pixels[window.rows, window.columns]
    after = display(attenuation(before) + delta)
    change = np.abs(after.astype(np.int16) - before)
    mask = _tidy(change >= VISIBLE, canvas.anatomy.width / window.scale[0])
    if not mask.any() or change[mask].max() < _CONTRAST:
        return None
    x1, y1, x2, y2 = (int(v) for v in mask_box(mask))
    mask = mask[y1:y2, x1:x2]
    part = Window(
        slice(window.rows.start + y1, window.rows.start + y2),
        slice(window.columns.start + x1, window.columns.start + x2),
        window.y[y1:y2],
        window.x[:, x1:x2],
        window.scale,
    )
    return part, np.where(mask, delta[y1:y2, x1:x2], np.float32(0.0)), mask


def _tidy(visible: Mask, width: float) -> Mask:
    """Gaps closed, specks left out; ``width`` is that of the chest in native pixels."""
    size = 2 * max(1, round(0.008 * width)) + 1
    padded = np.pad(visible, size).view(np.uint8)
    closed = ndimage.minimum_filter(ndimage.maximum_filter(padded, size), size).view(bool)[size:-size, size:-size]
    labels, count = ndimage.label(closed)
    if count < 2:
        return closed
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= 0.04 * areas.max())[labels]


def _thing(kind: str, canvas: Canvas, rng: np.random.Generator) -> tuple[Distractor, _Layer]:
    window, delta = draw_distractor(kind, canvas, rng)
    before = canvas.pixels[window.rows, window.columns]
    mask = np.abs(display(attenuation(before) + delta).astype(np.int16) - before) >= VISIBLE
    layer = _Layer(((window, np.where(mask, delta, np.float32(0.0)), mask),))
    whole = layer.mask(canvas.pixels.shape)
    box = _native_box(window, mask) if mask.any() else (0.0, 0.0, 0.0, 0.0)
    return Distractor(kind, whole, box), layer


def _native_box(window: Window, mask: Mask) -> Box:
    x1, y1, x2, y2 = mask_box(mask)
    left, top = window.columns.start, window.rows.start
    return (x1 + left, y1 + top, x2 + left, y2 + top)


def _coarse(mask: Mask, shape: tuple[int, int]) -> Mask:
    image = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BOX)) >= 64
