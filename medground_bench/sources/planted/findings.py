"""The findings that can be planted: where each one goes, and what it does to the attenuation.

Every drawing depends on the canvas and its own random stream alone, never on what else is planted: taking one finding
away never changes another. Lengths are cells of the geometry's grid; opacity is stated in units of the contrast
between soft tissue and lung of the canvas itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from medground_bench.sources.distributions import distribution
from medground_bench.sources.planted.anatomy import SIDES, Field, Mask, mask_box

if TYPE_CHECKING:
    from medground_bench.sources.planted.canvas import Canvas, Window

__all__ = ["DRAWING_ORDER", "FINDINGS", "Drawing", "draw"]

FINDINGS: tuple[str, ...] = (
    "cardiomegaly",
    "aortic enlargement",
    "hilar enlargement",
    "consolidation",
    "atelectasis",
    "lung mass",
    "nodule",
    "pneumothorax",
    "pleural effusion",
    "interstitial pattern",
    "clavicle fracture",
    "rib fracture",
)
"""Findings in clinical vocabulary, in the order in which an image lists them."""

DRAWING_ORDER: tuple[str, ...] = (
    "cardiomegaly",
    "pleural effusion",
    "pneumothorax",
    "hilar enlargement",
    "aortic enlargement",
    "consolidation",
    "interstitial pattern",
    "lung mass",
    "atelectasis",
    "nodule",
    "clavicle fracture",
    "rib fracture",
)
"""What can go in one place only is placed before what finds room elsewhere."""

_ZONES = ("upper", "mid", "lower")
_SIGN = (-1.0, 1.0)  # of x, outwards from the midline, per side


@dataclass(frozen=True)
class Drawing:
    """A finding drawn on a canvas, before anything else is considered.

    Attributes
    ----------
    sides : tuple of int
        0 right, 1 left; empty for a midline finding.
    zone : {"upper", "mid", "lower", None}
        Third of the lung.
    location, concept : str
        Anatomical phrase; the concept (or composite) that holds the finding best.
    lesions : tuple of (Window, float array)
        Per lesion the change of attenuation in a window.
    """

    sides: tuple[int, ...]
    zone: str | None
    location: str
    concept: str
    lesions: tuple[tuple[Window, Field], ...]


def draw(attribute: str, canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """Draw one finding; None where this chest has no room for it.

    Parameters
    ----------
    attribute : str
        One of :data:`FINDINGS`.
    canvas : Canvas
        What to draw on.
    taken : bool array
        Cells of the geometry's grid where other findings are: a lesion of the lung avoids them.
    rng : numpy.random.Generator
        The finding's own stream.
    """
    return _DRAW[attribute](canvas, taken, rng)


# Places ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    side: int
    zone: str
    x: float
    y: float

    @property
    def phrase(self) -> str:
        return f"{SIDES[self.side]} {self.zone} lung zone"

    @property
    def concept(self) -> str:
        return f"{SIDES[self.side]} lung"


def _lung_place(
    canvas: Canvas,
    taken: Mask,
    rng: np.random.Generator,
    radius: float,
    *,
    inside: float = 0.7,
    zones: tuple[str, ...] = _ZONES,
) -> _Place | None:
    """A random cell of a random side and zone at least ``inside * radius`` within the lung, free of other findings."""
    a = canvas.anatomy
    free = ndimage.distance_transform_edt(~taken) > radius if taken.any() else np.True_
    options = [(side, zone) for side in (0, 1) for zone in zones]
    rows = np.arange(a.shape[0])
    for index in rng.permutation(len(options)):
        side, zone = options[index]
        share = (rows - a.apex[side]) / max(1.0, a.base[side] - a.apex[side]) * 3
        k = _ZONES.index(zone)
        band = (share >= k) & (share < k + 1)
        cells = np.argwhere((a.depth[side] >= inside * radius) & band[:, None] & free)
        if len(cells):
            y, x = cells[int(rng.integers(len(cells)))]
            return _Place(side, zone, float(x) + 0.5, float(y) + 0.5)
    return None


def _share(rng: np.random.Generator, finding: str) -> float:
    """Share of the image that a finding's box takes, as on NIH ChestX-ray14: between its first and last decile."""
    deciles = np.log(distribution(finding).area)
    return float(np.exp(np.interp(rng.uniform(0.05, 0.95), np.linspace(0.1, 0.9, len(deciles)), deciles)))


def _side(rng: np.random.Generator, both: float = 0.0) -> tuple[int, ...]:
    side = int(rng.integers(2))
    return (0, 1) if rng.random() < both else (side,)


def _on(sides: tuple[int, ...], one: str, two: str) -> str:
    return f"both {two}" if len(sides) == 2 else f"{SIDES[sides[0]]} {one}"


# Opacities ---------------------------------------------------------------------------------------------------------


def _step(field: Field, width: float) -> Field:
    """0 below zero, 1 above it, smooth over ``width`` to either side."""
    t = np.clip(field / np.float32(2 * width) + np.float32(0.5), 0.0, 1.0)
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)


def _around(canvas: Canvas, x: float, y: float, rx: float, ry: float) -> Window:
    return canvas.window(x - rx, y - ry, x + rx, y + ry)


def _outline(window: Window, x: float, y: float, rough: float, rng: np.random.Generator, ratio: float = 1.0) -> Field:
    """Distance from a centre in units of an irregular outline of radius 1 cell (``ratio``: height over width)."""
    dx, dy = window.x - np.float32(x), (window.y - np.float32(y)) / np.float32(ratio)
    phi = np.arctan2(dy, dx)
    outline = np.ones_like(phi)
    for k in range(2, 8):
        outline += np.float32(rough / k**0.5 * rng.normal()) * np.cos(
            np.float32(k) * phi + np.float32(rng.uniform(0, 6.283))
        )
    return np.hypot(dx, dy) / np.maximum(outline, np.float32(0.4))


def _toward(canvas: Canvas, window: Window, opacity: Field, level: float, damp: float) -> Field:
    """Bring the tissue's mean attenuation to ``level`` where it is lower; ``damp`` is what detail loses."""
    mean = window.sample(canvas.smooth)
    lift = np.maximum(np.float32(level) - mean, np.float32(0.0))
    return opacity * (lift - np.float32(damp) * (canvas.depth(window) - mean))


def _round(
    canvas: Canvas, place: _Place, radius: float, strength: float, rough: float, edge: float, rng: np.random.Generator
) -> tuple[Window, Field]:
    """A round lesion: the thickness of a ball with an irregular outline and a soft edge."""
    reach = radius * (1.25 + 2 * rough) + edge
    window = _around(canvas, place.x, place.y, reach, reach)
    t = _outline(window, place.x, place.y, rough, rng) / np.float32(radius)
    ball = np.sqrt(np.clip(np.float32(1.0) - t * t, 0.0, 1.0))
    shape = _step(np.float32(1.0) - t, edge / radius) * (np.float32(0.55) + np.float32(0.45) * ball)
    grain = np.float32(1.0) + np.float32(0.06) * window.noise(rng, max(2.0, 0.45 * radius))
    here = float(canvas.smooth[int(place.y), int(place.x)])
    # Where the chest is dense already, a lesion stands out less.
    room = np.clip((canvas.soft_level - here) / canvas.contrast, 0.25, 1.0)
    return window, np.float32(strength * canvas.contrast * room) * shape * grain


def _nodule(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    radius = 0.5 * (_share(rng, "Nodule") * canvas.coarse.size) ** 0.5 * 0.92
    strength, rough, edge = rng.uniform(0.24, 0.45), rng.uniform(0.02, 0.07), radius * rng.uniform(0.15, 0.35)
    place = _lung_place(canvas, taken, rng, radius, inside=0.9)
    if place is None:
        return None
    lesion = _round(canvas, place, radius, strength, rough, edge, rng)
    return Drawing((place.side,), place.zone, place.phrase, place.concept, (lesion,))


def _lung_mass(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    radius = 0.5 * (max(_share(rng, "Mass"), 0.010) * canvas.coarse.size) ** 0.5 * 0.92
    strength, rough, edge = rng.uniform(0.35, 0.65), rng.uniform(0.05, 0.11), radius * rng.uniform(0.12, 0.28)
    place = _lung_place(canvas, taken, rng, radius, inside=0.62)
    if place is None:
        return None
    window, delta = _round(canvas, place, radius, strength, rough, edge, rng)
    delta = delta * np.clip(np.float32(2.0) * _chest(canvas, window, place.side), 0.0, 1.0)
    return Drawing((place.side,), place.zone, place.phrase, place.concept, ((window, delta),))


def _chest(canvas: Canvas, window: Window, side: int) -> Field:
    """Inside the ribs and lateral of the midline on one side: where a lesion of the lung may show, soft-edged."""
    a = canvas.anatomy
    sign = np.float32(_SIGN[side])
    lateral = _step(sign * (window.rows_of(a.wall[side]) - window.x), 2.0)
    medial = _step(sign * (window.x - np.float32(a.midline)), 3.0)
    return lateral * medial * _step(window.y - np.float32(a.apex[side]), 2.0)


def _consolidation(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    a = canvas.anatomy
    ratio = float(np.exp(0.25 * rng.standard_normal()))
    radius = 0.57 * (_share(rng, "Pneumonia") * canvas.coarse.size) ** 0.5
    strength, patchy, damp = rng.uniform(0.38, 0.72), rng.uniform(0.12, 0.30), rng.uniform(0.10, 0.35)
    place = _lung_place(canvas, taken, rng, 0.6 * radius, inside=0.55)
    if place is None:
        return None
    rx, ry = radius / ratio**0.5, radius * ratio**0.5
    window = _around(canvas, place.x, place.y, 1.35 * rx, 1.35 * ry)
    t = _outline(window, place.x, place.y, 0.10, rng, ry / rx) / np.float32(rx)
    texture = window.noise(rng, 0.55 * radius) + np.float32(0.45) * window.noise(rng, 0.22 * radius)
    core = np.clip((np.float32(1.05) - t) / np.float32(0.75) + np.float32(patchy) * texture, 0.0, 1.0)
    core = core * _step(np.float32(1.3) - t, 0.10) * window.sample(a.soft[place.side])
    opacity = core * np.clip(np.float32(0.9) + np.float32(0.08) * texture, 0.5, 1.1)
    level = canvas.lung_level + strength * canvas.contrast
    delta = _toward(canvas, window, opacity, level, damp)
    return Drawing((place.side,), place.zone, place.phrase, place.concept, ((window, delta),))


def _atelectasis(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    length = 0.5 * (_share(rng, "Atelectasis") * canvas.coarse.size * 1.6) ** 0.5
    count, tilt, bow = int(rng.integers(2, 5)), rng.uniform(-0.30, 0.30), rng.uniform(-0.25, 0.35)
    strength = rng.uniform(0.22, 0.42)
    place = _lung_place(canvas, taken, rng, 0.55 * length, inside=0.45, zones=("mid", "lower", "lower"))
    if place is None:
        return None
    spread = 0.75 * length
    window = _around(canvas, place.x, place.y, 1.3 * length, spread + 0.5 * length)
    shape = np.zeros(window.shape, np.float32)
    wobble = window.noise(rng, 0.5 * length)
    for k in range(count):
        along = length * rng.uniform(0.65, 1.0)
        thick = canvas.anatomy.width * rng.uniform(0.007, 0.016)
        cx = place.x + 0.2 * length * rng.normal()
        cy = place.y + spread * ((k + 0.5) / count - 0.5) * 1.5 + 0.06 * length * rng.normal()
        dx = (window.x - np.float32(cx)) / np.float32(along)
        slope = tilt + 0.12 * rng.normal()
        middle = np.float32(cy) + np.float32(along) * (np.float32(slope) * dx + np.float32(bow) * dx * dx)
        taper = np.sqrt(np.clip(np.float32(1.0) - dx * dx, 0.0, 1.0))
        off = np.abs(window.y - middle - np.float32(0.10 * thick) * wobble)
        band = _step(np.float32(thick) * taper - off, 0.7 * thick) * (taper > 0) * np.float32(rng.uniform(0.7, 1.0))
        shape = np.maximum(shape, band)
    # The lung between the plates has lost air too.
    haze = np.exp(
        -(((window.x - np.float32(place.x)) / np.float32(length)) ** 2) * 2
        - ((window.y - np.float32(place.y)) / np.float32(spread)) ** 2 * 2
    )
    shape = (np.maximum(shape, np.float32(0.22) * haze)) * window.sample(canvas.anatomy.soft[place.side])
    delta = np.float32(strength * canvas.contrast) * shape
    return Drawing((place.side,), place.zone, place.phrase, place.concept, ((window, delta),))


def _interstitial(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """Reticulation: a net of thickened septa in a band of one or both lungs."""
    a = canvas.anatomy
    sides = _side(rng, 0.45)
    strength, cell = rng.uniform(0.18, 0.34), a.width * rng.uniform(0.012, 0.020)
    extent = rng.uniform(0.28, 0.55)
    start = rng.uniform(0.05, 1.0 - extent)
    zone = _ZONES[int(3 * (start + 0.5 * extent))]
    lesions = []
    for side in sides:
        lung = a.masks[f"{SIDES[side]} lung"]
        tall = a.base[side] - a.apex[side]
        top, bottom = a.apex[side] + start * tall, a.apex[side] + (start + extent) * tall
        x1, _, x2, _ = mask_box(lung)
        window = canvas.window(x1, top - 6, x2, bottom + 6)
        net = np.zeros(window.shape, np.float32)
        for size in (1.0, 1.7):
            ridge = np.abs(window.noise(rng, cell * size) / np.float32(1.35))
            net = np.maximum(net, np.clip(np.float32(1.0) - ridge / np.float32(0.32), 0.0, 1.0))
        patch = np.clip(np.float32(0.75) + np.float32(0.35) * window.noise(rng, 0.12 * a.width), 0.15, 1.1)
        rise = _step(window.y - np.float32(top), 0.05 * a.width) * _step(np.float32(bottom) - window.y, 0.05 * a.width)
        shape = (np.float32(0.8) * net + np.float32(0.18)) * patch * rise * window.sample(a.soft[side])
        shape = shape * (np.float32(1.0) - np.float32(0.8) * window.sample(a.masks["cardiac silhouette"]))
        # Seen against aerated lung only: the mask may reach a little onto the diaphragm.
        room = np.clip((np.float32(canvas.soft_level) - window.sample(canvas.smooth)) / canvas.contrast, 0.0, 1.0)
        lesions.append((window, np.float32(strength * canvas.contrast) * shape * np.sqrt(room)))
    where = _on(sides, f"{zone} lung zone", f"{zone} lung zones")
    return Drawing(sides, zone, where, _on(sides, "lung", "lungs"), tuple(lesions))


# Pleura ------------------------------------------------------------------------------------------------------------


def _pleural_effusion(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """Fluid at the base: opaque, with a meniscus that climbs along the wall."""
    a = canvas.anatomy
    sides = _side(rng, 0.25)
    lesions = []
    for side in sides:
        sign = np.float32(_SIGN[side])
        tall = a.base[side] - a.apex[side]
        climb, steep, slope = rng.uniform(0.25, 0.65), rng.uniform(0.10, 0.22), rng.uniform(-0.05, 0.12)
        x1, _, x2, _ = mask_box(a.masks[f"{SIDES[side]} lung"])
        whole = _share(rng, "Effusion") * canvas.coarse.size / (x2 - x1)
        height = float(np.clip(whole / (1.0 + 0.7 * climb), 0.10 * tall, 0.75 * tall))
        window = canvas.window(x1 - 6, a.base[side] - height * (1.0 + climb) - 8, x2 + 8, a.base[side] + 0.08 * a.width)
        wall = window.rows_of(a.wall[side])
        inward = np.clip(sign * (wall - window.x) / np.float32(0.5 * a.width), 0.0, 1.0)
        # The meniscus: high at the wall, low in the middle, a little higher again at the mediastinum.
        rise = np.float32(climb) * np.exp(-inward / np.float32(steep)) - np.float32(slope) * inward
        surface = np.float32(a.base[side] - height) - np.float32(height) * rise
        surface = surface + np.float32(0.012 * a.width) * window.noise(rng, 0.12 * a.width)
        lung = _filled(canvas, window, side)
        below = _step(window.y - surface, rng.uniform(0.025, 0.060) * a.width) * lung
        level = _abdomen(canvas, side)
        lesions.append((window, _toward(canvas, window, np.float32(rng.uniform(0.85, 0.98)) * below, level, 0.9)))
    return Drawing(
        sides,
        "lower",
        _on(sides, "pleural base", "pleural bases"),
        _on(sides, "costophrenic angle", "costophrenic angles"),
        tuple(lesions),
    )


def _filled(canvas: Canvas, window: Window, side: int) -> Field:
    """The lung and the recess beneath it down to the costophrenic angle, soft-edged; the heart's share is faint."""
    a = canvas.anatomy
    lung = window.sample(a.soft[side])
    sign = np.float32(_SIGN[side])
    # Generous: what is dense already hardly changes.
    lateral = _step(sign * (window.rows_of(a.wall[side]) - window.x) + np.float32(0.028 * a.width), 2.5)
    medial = _step(sign * (window.x - window.rows_of(a.inner[side])) + np.float32(0.02 * a.width), 0.02 * a.width)
    recess = lateral * medial * _step(np.float32(a.base[side] + 0.045 * a.width) - window.y, 0.03 * a.width)
    return np.maximum(lung, recess)


def _abdomen(canvas: Canvas, side: int) -> float:
    """Attenuation under the diaphragm of one side, not below that of the heart by much."""
    a = canvas.anatomy
    top = int(min(a.base[side] + 2, a.shape[0] - 2))
    x1, _, x2, _ = mask_box(a.masks[f"{SIDES[side]} lung"])
    under = canvas.coarse[top : top + int(0.12 * a.width), int(x1) : int(x2)]
    level = float(np.percentile(under, 70)) if under.size else canvas.soft_level
    return float(np.clip(level, canvas.soft_level - 0.25 * canvas.contrast, canvas.soft_level + 0.2 * canvas.contrast))


def _pneumothorax(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """Air between wall and lung: no markings, a little darker, bounded by the thin line of the visceral pleura.

    Most lie over the apex and run down the wall; some are pockets at the lateral wall.
    """
    a = canvas.anatomy
    (side,) = _side(rng)
    sign = np.float32(_SIGN[side])
    x1, y1, x2, _ = mask_box(a.masks[f"{SIDES[side]} lung"])
    tall = a.base[side] - a.apex[side]
    length = float(np.clip(_share(rng, "Pneumothorax") * canvas.coarse.size / (0.75 * (x2 - x1)) / tall, 0.22, 0.97))
    gap = a.width * float(np.clip((0.03 + 0.12 * length) * rng.uniform(0.6, 1.3), 0.035, 0.18))
    start = float(rng.uniform(0.05, 0.95 - length)) if rng.random() < 0.3 and length < 0.8 else 0.0
    pocket = start > 0.0
    darker, bright = rng.uniform(0.10, 0.22) * canvas.contrast, rng.uniform(0.18, 0.32) * canvas.contrast
    window = canvas.window(x1 - 3, y1 + start * tall - 3, x2 + 3, y1 + (start + length) * tall + 3)
    t = np.clip(((window.y - np.float32(y1)) / np.float32(tall) - np.float32(start)) / np.float32(length), 0.0, 1.0)
    # The line follows the wall at a distance that narrows downwards; a pocket narrows both ways.
    profile = np.maximum(np.sin(np.float32(np.pi) * t), 0.0) if pocket else np.float32(1.0) - t
    rim = np.float32(gap) * profile ** np.float32(0.6)
    rim = rim * (np.float32(1.0) + np.float32(0.10) * window.noise(rng, 0.20 * a.width))
    inside = sign * (window.rows_of(a.wall[side]) - window.x) - rim
    if not pocket:  # the lung's apex has sunk
        sunk = window.y - np.float32(y1 + rng.uniform(0.8, 1.3) * gap)
        corner = np.float32(0.033 * a.width)
        inside = -np.logaddexp(-inside / corner, -sunk / corner) * corner  # a rounded minimum
    field = _step(window.sample(a.soft[side]) - np.float32(0.5), 0.45)
    field = field * ((t > 0) & (t < 1)) if pocket else field
    space = _step(-inside, 0.006 * a.width) * field
    fine = canvas.depth(window)
    flat = ndimage.gaussian_filter(fine, 0.010 * a.width / window.scale[0])
    line = np.exp(-((inside / np.float32(max(0.0045 * a.width, 0.7 * window.scale[0]))) ** 2)) * field
    delta = space * (np.float32(0.75) * (flat - fine) - np.float32(darker)) + np.float32(bright) * line
    zone = a.zone(side, y1 + (start + 0.5 * length) * tall) if pocket else "upper"
    where = f"{SIDES[side]} {'' if pocket else 'apex and '}lateral pleural space"
    return Drawing((side,), zone, where, f"{SIDES[side]} lung", ((window, delta),))


# Heart, aorta, hila --------------------------------------------------------------------------------------------------


def _warped(canvas: Canvas, window: Window, dx: Field, dy: Field) -> Field:
    """Change of attenuation when every pixel takes what lies (dx, dy) native pixels away in the window."""
    fine = canvas.depth(window)
    rows, columns = np.mgrid[0 : window.shape[0], 0 : window.shape[1]].astype(np.float32)
    moved = ndimage.map_coordinates(fine, [rows + dy, columns + dx], order=3, mode="nearest", prefilter=True)
    return np.where((dx != 0) | (dy != 0), moved - fine, np.float32(0.0)).astype(np.float32)


def _cardiomegaly(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """The heart's own outline, stretched sideways from the spine; the lung beside it is pushed aside."""
    a = canvas.anatomy
    x1, y1, x2, y2 = a.heart
    mid = float(np.clip(a.midline, x1 + 0.2 * (x2 - x1), x2 - 0.2 * (x2 - x1)))
    ratio = (x2 - x1) / a.width
    target = float(np.clip(rng.normal(0.64, 0.03), max(0.58, 1.15 * ratio), 0.75))  # experts: 0.66
    grow = target / max(ratio, 0.25)
    split = rng.uniform(0.55, 0.75)  # most of the growth is to the left
    room = (mid - float(a.wall[0][int((y1 + y2) / 2)]), float(a.wall[1][int((y1 + y2) / 2)]) - mid)
    extra = (x2 - x1) * (grow - 1.0)
    half = (mid - x1, x2 - mid)
    wide = tuple(min(half[side] + extra * share, 0.92 * room[side]) for side, share in enumerate((1.0 - split, split)))
    if any(w < h + 0.01 * a.width for w, h in zip(wide, half, strict=True)):
        return None
    reach = tuple(
        min(w + 0.6 * (w - h) + 0.02 * a.width, room[s]) for s, (w, h) in enumerate(zip(wide, half, strict=True))
    )
    tall = y2 - y1
    window = canvas.window(mid - reach[0], y1 - 0.12 * tall, mid + reach[1], y2 + 0.22 * tall)
    # Full effect over the ventricles, none at the great vessels and under the diaphragm.
    rise = _step(window.y - np.float32(y1 + 0.30 * tall), 0.34 * tall)
    fall = _step(np.float32(y2 + 0.06 * tall) - window.y, 0.14 * tall)
    amount = rise * fall
    dx = np.zeros(window.shape, np.float32)
    for side in (0, 1):
        u = np.float32(_SIGN[side]) * (window.x - np.float32(mid))
        h, w, r = half[side], wide[side], reach[side]
        core = 0.25 * h
        knots, source = [0.0, core, w, r], [0.0, core, h, r]
        shift = np.interp(u, knots, np.array(source) - np.array(knots)).astype(np.float32)
        shift = ndimage.gaussian_filter1d(shift, 0.02 * a.width / window.scale[0], axis=1, mode="nearest")
        shift = shift * _step(np.float32(r) - u, 0.02 * a.width) * (u > 0)
        dx += np.float32(_SIGN[side]) * shift * amount / np.float32(window.scale[0])
    delta = _warped(canvas, window, dx, np.zeros_like(dx))
    return Drawing((), None, "cardiac silhouette", "cardiac silhouette", ((window, delta),))


def _aortic_enlargement(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """A wide, prominent knob at the left border of the upper mediastinum."""
    a = canvas.anatomy
    tall = a.base[1] - a.apex[1]
    y = a.apex[1] + rng.uniform(0.22, 0.32) * tall
    radius = a.width * rng.uniform(0.060, 0.090)
    edge = float(a.inner[1][int(np.clip(y, 0, a.shape[0] - 1))])
    x = edge + radius * rng.uniform(-0.15, 0.30)
    window = _around(canvas, x, y + 0.3 * radius, 1.5 * radius, 2.0 * radius)
    t = _outline(window, x, y, 0.03, rng, 1.15) / np.float32(radius)
    # It runs on into the descending aorta.
    tail = np.hypot(
        (window.x - np.float32(edge - 0.1 * radius)) / np.float32(0.75 * radius),
        (window.y - np.float32(y + radius)) / np.float32(1.6 * radius),
    )
    shape = np.maximum(_step(np.float32(1.0) - t, 0.10), np.float32(0.85) * _step(np.float32(1.0) - tail, 0.2))
    shape = shape * _step(window.x - np.float32(a.midline), 4.0)
    level = canvas.soft_level - rng.uniform(0.2, 0.4) * canvas.contrast
    delta = _toward(canvas, window, shape * np.float32(0.9), level, 0.25)
    return Drawing((), "upper", "aortic knob", "upper mediastinum", ((window, delta),))


def _hilar_enlargement(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """Lobulated enlargement of the hilar shadow."""
    a = canvas.anatomy
    sides = tuple(s for s in _side(rng, 0.3) if a.masks.get(f"{SIDES[s]} hilar structures", np.zeros(1, bool)).any())
    if not sides:
        return None
    strength = rng.uniform(0.28, 0.48) * canvas.contrast
    size = a.width * rng.uniform(0.050, 0.075)
    lesions = []
    for side in sides:
        x1, y1, x2, y2 = mask_box(a.masks[f"{SIDES[side]} hilar structures"])
        x, y, sign = (x1 + x2) / 2, (y1 + y2) / 2, _SIGN[side]
        x, y = x + sign * 0.1 * size + 0.12 * size * rng.normal(), y + 0.3 * size * rng.normal()
        window = _around(canvas, x, y, 2.3 * size, 2.7 * size)
        shape = np.zeros(window.shape, np.float32)
        for dx, dy, scale in ((-0.15, -0.8, 0.75), (0.25, 0.0, 0.95), (-0.10, 0.8, 0.80)):
            cx = x + sign * dx * size + 0.15 * size * rng.normal()
            cy = y + dy * size + 0.15 * size * rng.normal()
            t = _outline(window, cx, cy, 0.07, rng) / np.float32(size * scale)
            ball = np.sqrt(np.clip(np.float32(1.0) - t * t, 0.0, 1.0))
            shape = np.maximum(shape, _step(np.float32(1.0) - t, 0.30) * (np.float32(0.6) + np.float32(0.4) * ball))
        lesions.append((window, np.float32(strength) * shape * _chest(canvas, window, side)))
    structures = _on(sides, "hilar structures", "hilar structures")
    return Drawing(sides, "mid", _on(sides, "hilum", "hila"), structures, tuple(lesions))


# Bones -------------------------------------------------------------------------------------------------------------


def _fracture(
    canvas: Canvas, x: float, y: float, angle: float, half: float, outward: float, rng: np.random.Generator
) -> tuple[Window, Field]:
    """A broken long bone: a dark gap across it, the outer fragment stepped off and tapering back to its course.

    ``angle`` is the bone's direction, ``half`` its half-width, ``outward`` the sign of the outer fragment along it.
    """
    length = half * rng.uniform(4.5, 6.5)
    step, gap, skew = half * rng.uniform(1.0, 1.7), half * rng.uniform(0.35, 0.65), rng.uniform(-0.45, 0.45)
    down = 1.0 if rng.random() < 0.8 else -1.0
    reach = 1.1 * length + 3 * half
    window = _around(canvas, x, y, reach, reach)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = (window.x - np.float32(x)) * c + (window.y - np.float32(y)) * s
    across = -(window.x - np.float32(x)) * s + (window.y - np.float32(y)) * c
    cut = np.float32(outward) * (along - np.float32(skew) * across)
    taper = np.where(
        cut > 0,
        np.clip(1.0 - cut / np.float32(length), 0.0, 1.0) ** 1.5,
        -0.35 * np.clip(1.0 + cut / np.float32(0.6 * length), 0.0, 1.0) ** 1.5,
    ).astype(np.float32)
    near = _step(np.float32(2.6 * half) - np.abs(across), 0.9 * half)
    shift = np.float32(down * step) * taper * near
    delta = _warped(canvas, window, shift * s / np.float32(window.scale[0]), -shift * c / np.float32(window.scale[1]))
    moved = np.abs(across - shift) / np.float32(half)
    slit = _step(np.float32(0.5 * gap) - np.abs(cut), max(0.25 * gap, 0.5 * window.scale[0])) * _step(
        np.float32(1.15) - moved, 0.25
    )
    # Bone ends overlap or are dense beside the gap.
    ends = np.exp(-(((np.abs(cut) - np.float32(gap)) / np.float32(0.5 * gap + 0.3)) ** 2)) * _step(
        np.float32(1.0) - moved, 0.2
    )
    bone = np.float32(0.28 * canvas.contrast)
    return window, delta - bone * np.float32(1.3) * slit + bone * np.float32(0.35) * ends * (np.float32(1.0) - slit)


def _clavicle_fracture(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    a = canvas.anatomy
    for side in rng.permutation(2):
        mask = a.masks.get(f"{SIDES[side]} clavicle")
        if mask is None or mask.sum() < 40:
            continue
        columns = np.flatnonzero(mask.any(0))
        middle = np.array([np.flatnonzero(mask[:, c]).mean() for c in columns])
        share = rng.uniform(0.40, 0.62) if side == 1 else 1.0 - rng.uniform(0.40, 0.62)
        k = int(share * (len(columns) - 1))
        # The bone is the bright band beside the transferred mask's axis.
        half = 0.016 * a.width
        x, rows = float(columns[k]) + 0.5, np.arange(a.shape[0])
        profile = ndimage.gaussian_filter1d(canvas.coarse[:, columns[k]], half) - 0.02 * np.abs(rows - middle[k]) / half
        y = float(np.argmax(np.where(np.abs(rows - middle[k]) < 2.0 * half, profile, -np.inf))) + 0.5
        lo, hi = max(0, k - 12), min(len(columns) - 1, k + 12)
        angle = float(np.arctan2(middle[hi] - middle[lo], columns[hi] - columns[lo]))
        lesion = _fracture(canvas, x, y, angle, half, _SIGN[side], rng)
        name = f"{SIDES[side]} clavicle"
        return Drawing((int(side),), "upper", f"{name}, middle third", name, (lesion,))
    return None


def _rib_fracture(canvas: Canvas, taken: Mask, rng: np.random.Generator) -> Drawing | None:
    """On a rib found as a ridge of the canvas near the lateral chest wall."""
    a = canvas.anatomy
    w = a.width
    ridge = ndimage.gaussian_filter(canvas.coarse, 0.008 * w) - ndimage.gaussian_filter(canvas.coarse, 0.03 * w)
    free = ndimage.distance_transform_edt(~taken) > 0.05 * w if taken.any() else np.ones(a.shape, bool)
    columns, rows = np.arange(a.shape[1]), np.arange(a.shape[0])
    for side in rng.permutation(2):
        off = _SIGN[side] * (a.wall[side][:, None] - columns[None])
        share = (rows - a.apex[side]) / max(1.0, a.base[side] - a.apex[side])
        band = (off > 0.035 * w) & (off < 0.15 * w) & ((share > 0.18) & (share < 0.88))[:, None]
        cells = np.argwhere(band & free & a.masks[f"{SIDES[side]} lung"])
        if len(cells) < 20:
            continue
        some = cells[rng.choice(len(cells), min(60, len(cells)), replace=False)]
        y, x = some[int(np.argmax(ridge[some[:, 0], some[:, 1]]))]
        angle = _direction(ridge, int(x), int(y), int(0.05 * w))
        zone = a.zone(int(side), float(y))
        lesion = _fracture(
            canvas, float(x) + 0.5, float(y) + 0.5, angle, 0.013 * w, _SIGN[side] * np.sign(np.cos(angle) or 1.0), rng
        )
        phrase = f"{SIDES[side]} lateral rib, {zone} zone"
        return Drawing((int(side),), zone, phrase, f"{SIDES[side]} lung", (lesion,))
    return None


def _direction(field: Field, x: int, y: int, reach: int) -> float:
    """Direction along the ridge through a cell, from the structure tensor around it."""
    part = field[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    gy, gx = np.gradient(part)
    xx, yy, xy = float((gx * gx).sum()), float((gy * gy).sum()), float((gx * gy).sum())
    across = 0.5 * np.arctan2(2 * xy, xx - yy)
    along = across + np.pi / 2
    return float((along + np.pi / 2) % np.pi - np.pi / 2)


_DRAW: dict[str, Callable[[Canvas, Mask, np.random.Generator], Drawing | None]] = {
    "cardiomegaly": _cardiomegaly,
    "aortic enlargement": _aortic_enlargement,
    "hilar enlargement": _hilar_enlargement,
    "consolidation": _consolidation,
    "atelectasis": _atelectasis,
    "lung mass": _lung_mass,
    "nodule": _nodule,
    "pneumothorax": _pneumothorax,
    "pleural effusion": _pleural_effusion,
    "interstitial pattern": _interstitial,
    "clavicle fracture": _clavicle_fracture,
    "rib fracture": _rib_fracture,
}
