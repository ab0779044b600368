"""The findings a phantom can carry: where each one sits, what it does to the attenuation, and its exact mask.

Every finding's parameters are drawn from the seed for all findings at once, present or not, in zones that do not
collide: removing one finding therefore never moves another.

Sizes spread over what radiologists' boxes cover (:mod:`medground_bench.sources.distributions`), drawn evenly on a
logarithmic scale; a nodule stays under 3 cm and a mass over it, where a chest is 28 cm wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from medground_bench.sources.phantom.anatomy import SIDES, stream
from medground_bench.sources.phantom.scene import Scene, at
from medground_bench.sources.phantom.shapes import Field, Mask, resize_field, step

__all__ = ["DRAWING_ORDER", "FINDINGS", "REACH", "Effect", "Layout", "draw_layout", "effect"]

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
    "clavicle fracture",
)
"""Findings in clinical vocabulary."""

DRAWING_ORDER: tuple[str, ...] = ("clavicle fracture", "pneumothorax", *FINDINGS[:7], "pleural effusion")
"""What removes bone or lung comes before what covers it."""

REACH = 0.02
"""How far beyond its mask a finding may change the attenuation, in plane units (its soft edge)."""

_SOFT = 0.69  # attenuation of the normal heart over the lung
_ZONES = ("upper", "mid", "lower")


@dataclass(frozen=True)
class Effect:
    """What one finding does to the image.

    Attributes
    ----------
    sides : tuple of int
        0 right, 1 left; empty for a midline finding.
    location, concept : str
        Anatomical phrase; the concept (or, on both sides, the composite) that holds the finding best.
    masks : tuple of bool array (H, W)
        One exact mask per lesion (a side, or each of several lesions).
    apply : callable
        ``(attenuation) -> attenuation``, changing it only at the masks and their soft edges.
    """

    sides: tuple[int, ...]
    location: str
    concept: str
    masks: tuple[Mask, ...]
    apply: Callable[[Field], Field]


@dataclass(frozen=True)
class Layout:
    """Side, lung zone and size of the findings: one draw for all of them, present or not.

    Attributes
    ----------
    side : dict of str to tuple of int
        0 right, 1 left; empty for a midline finding.
    zone : dict of str to int
        0 upper, 1 mid, 2 lower.
    size : dict of str to float
        What decides how many zones a finding takes, in plane units: the radius of a consolidation or mass, the height
        of an effusion.
    """

    side: dict[str, tuple[int, ...]]
    zone: dict[str, int]
    size: dict[str, float]


def draw_layout(seed: int) -> Layout:
    """Give every finding its sides and, in the lungs, zones of its own."""
    r = stream(seed, "layout")
    free = {(side, zone) for side in (0, 1) for zone in range(3)}

    def some(both: float) -> tuple[int, ...]:
        side = int(r.integers(2))
        return (0, 1) if r.random() < both else (side,)

    def take(large: bool) -> tuple[int, int]:
        """A free zone; for a large lesion its neighbour goes with it, if as many are left as others need."""
        options = sorted(free)
        choice = options[int(r.integers(len(options)))]
        free.discard(choice)
        if large:
            free.discard((choice[0], 0 if choice[1] == 1 else 1))
        return choice

    side: dict[str, tuple[int, ...]] = {"pleural effusion": some(0.3), "hilar enlargement": some(0.3)}
    both = len(side["pleural effusion"]) == 2
    size = {
        "pleural effusion": _spread(r, 0.100, 0.24 if both else 0.42),
        "consolidation": _spread(r, 0.070, 0.105 if both else 0.195),
        "lung mass": _spread(r, 0.052, 0.105),
    }
    zone: dict[str, int] = {}
    for s in side["pleural effusion"]:
        free.discard((s, 2))
        if size["pleural effusion"] > 0.26:
            free.discard((s, 1))
    for name in ("consolidation", "lung mass", "atelectasis", "nodule"):
        # At least one zone must be left for each that follows.
        s, z = take(name == "consolidation" and size[name] > 0.11 and len(free) > 4)
        side[name], zone[name] = (s,), z
    side["pneumothorax"] = some(0.0)
    side["clavicle fracture"] = some(0.0)
    side["cardiomegaly"] = side["aortic enlargement"] = ()
    return Layout(side, zone, size)


def _spread(r: np.random.Generator, low: float, high: float) -> float:
    """A size, evenly distributed on a logarithmic scale."""
    return float(np.exp(r.uniform(np.log(low), np.log(high))))


def effect(attribute: str, scene: Scene, layout: Layout) -> Effect:
    """The effect of one finding on a scene, with the parameters that the seed gives it."""
    drawn = _EFFECTS[attribute](scene, layout, stream(scene.seed, attribute))
    return replace(drawn, apply=_confined(drawn, scene))


def _confined(drawn: Effect, scene: Scene) -> Callable[[Field], Field]:
    """The effect's change of attenuation, kept within :data:`REACH` of its masks."""
    from scipy.ndimage import maximum_filter

    mask = np.logical_or.reduce(drawn.masks)
    near = maximum_filter(mask.view(np.uint8), 2 * int(np.ceil(REACH * scene.grid.unit)) + 1).view(bool)
    return lambda depth: np.where(near, drawn.apply(depth), depth)


# Composition -------------------------------------------------------------------------------------------------------


def _add(amount: Field) -> Callable[[Field], Field]:
    return lambda depth: depth + amount


def _toward(opacity: Field, level: float) -> Callable[[Field], Field]:
    """Raise the attenuation towards ``level`` (never lower it) where the finding is opaque."""
    return lambda depth: depth + opacity * np.maximum(np.float32(level) - depth, np.float32(0.0))


def _lung_point(scene: Scene, side: int, zone: int, r: np.random.Generator, margin: float) -> tuple[float, float]:
    """A point in a lung zone at least ``margin`` from chest wall, mediastinum, enlarged heart and diaphragm."""
    a, sign = scene.a, (-1.0, 1.0)[side]
    v, u = r.uniform(0.15, 0.85), r.uniform(0.25, 0.75)
    bottom = a.angle[side] - a.dome[side] - 0.4 * margin
    top = a.apex[side] + 0.055
    y = top + (bottom - top) * (zone + v) / 3.0
    y = min(max(y, top + 0.75 * margin), bottom - 0.75 * margin)
    near, far = at(partial(scene.inner, side), y) + 0.03, at(partial(scene.wall, side), y)
    if zone >= 1:  # beside the heart, were it enlarged
        reach = (0.12, 0.215)[side] if zone == 2 else (0.075, 0.115)[side]
        near = max(near, reach)
    near, far = near + 0.6 * margin, far - 0.9 * margin
    d = near + (far - near) * u if far > near else 0.5 * (near + far)
    return at(scene.midline, y) + sign * d, y


def _blob(scene: Scene, x: float, y: float, radius: float, r: np.random.Generator, rough: float, edge: float) -> Field:
    """Opacity of a round lesion with an irregular outline."""
    g = scene.grid
    reach = radius * (1.0 + 3 * rough) + edge + 0.01
    rows, cols = g.window(x - reach, y - reach, x + reach, y + reach)
    dx, dy = g.x[:, cols] - np.float32(x), g.y[rows] - np.float32(y)
    phi = np.arctan2(dy, dx)
    outline = np.ones_like(phi)
    for k in range(2, 7):
        outline += np.float32(rough / k**0.5 * r.normal()) * np.cos(k * phi + np.float32(r.uniform(0, 6.283)))
    out = g.zeros()
    out[rows, cols] = step(np.float32(radius) * outline - np.hypot(dx, dy), edge)
    return out


def _zone_phrase(side: int, zone: int) -> str:
    return f"{SIDES[side]} {_ZONES[zone]} lung zone"


def _both(sides: tuple[int, ...], single: str, plural: str) -> str:
    return f"both {plural}" if len(sides) == 2 else f"{SIDES[sides[0]]} {single}"


# The findings ------------------------------------------------------------------------------------------------------


def _cardiomegaly(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    across, along = float(r.uniform(1.36, 1.80)), float(r.uniform(1.08, 1.35))
    level = scene.heart_level(across, along)
    opacity = step(level, 0.0055)
    return Effect((), "cardiac silhouette", "cardiac silhouette", (level > 0,), _toward(opacity, _SOFT))


def _aortic_enlargement(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    opacity = scene.knob(_spread(r, 1.6, 2.7))
    return Effect((), "aortic knob", "upper mediastinum", (opacity > 0.5,), _toward(opacity, _SOFT))


def _hilar_enlargement(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    sides = layout.side["hilar enlargement"]
    strength = float(r.uniform(0.75, 1.0))
    size = _spread(r, 0.75, 1.5)
    offsets = r.normal(0, 0.010, (2, 4, 2))
    total, masks = scene.grid.zeros(), []
    for side in sides:
        x, y = scene.hila[side]
        sign = (-1.0, 1.0)[side]
        one = scene.grid.zeros()
        for k, (dx, dy, radius) in enumerate(((0.012, -0.026, 0.034), (0.030, 0.0, 0.036), (0.014, 0.034, 0.032))):
            ox, oy = offsets[side, k]
            one = np.maximum(
                one, _blob(scene, x + sign * (dx * size) + ox, y + dy * size + oy, radius * size, r, 0.06, 0.014)
            )
        masks.append(one > 0.5)
        total = np.maximum(total, one)
    concept = _both(sides, "hilar structures", "hilar structures")
    location = _both(sides, "hilum", "hila")
    return Effect(sides, location, concept, tuple(masks), _toward(np.float32(strength) * total, 0.64))


def _consolidation(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    (side,), zone = layout.side["consolidation"], layout.zone["consolidation"]
    radius = layout.size["consolidation"]
    x, y = _lung_point(scene, side, zone, r, 0.75 * radius)
    g = scene.grid
    # Patchy: a soft blob, broken up by smooth noise of a fixed low resolution.
    noise = r.standard_normal((8, 8)).astype(np.float32)
    reach = 1.7 * radius
    rows, cols = g.window(x - reach, y - reach, x + reach, y + reach)
    dx, dy = (
        (g.x[:, cols] - np.float32(x)) / np.float32(radius),
        (g.y[rows] - np.float32(y)) / np.float32(1.15 * radius),
    )
    texture = resize_field(noise, dx.shape[1], dy.shape[0]) if dx.size and dy.size else np.float32(0.0)
    core = np.clip(np.float32(1.25) - np.hypot(dx, dy) + np.float32(0.22) * texture, 0.0, 0.7) / np.float32(0.7)
    opacity = g.zeros()
    opacity[rows, cols] = core * (np.float32(0.85) + np.float32(0.10) * np.clip(texture, -1.5, 1.5))
    opacity = np.clip((opacity - np.float32(0.2)) / np.float32(0.8), 0.0, 1.0) * scene.lungs[side]
    mask = opacity > 0.2
    strength = np.float32(r.uniform(0.70, 0.95))
    phrase = _zone_phrase(side, zone)
    return Effect((side,), phrase, f"{SIDES[side]} lung", (mask,), _toward(strength * opacity, 0.58))


def _atelectasis(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    (side,), zone = layout.side["atelectasis"], layout.zone["atelectasis"]
    g, sign = scene.grid, (-1.0, 1.0)[side]
    size = _spread(r, 0.85, 1.7)
    x, y = _lung_point(scene, side, zone, r, 0.06 * size)
    opacity = g.zeros()
    count = int(r.integers(2, 4))
    tilt = float(r.uniform(-0.25, 0.25))
    for k in range(count):
        length, thick = float(r.uniform(0.060, 0.080)) * size, float(r.uniform(0.0065, 0.0095)) * size**0.5
        cx, cy = (
            x + float(r.normal(0, 0.010)),
            y + (k - (count - 1) / 2) * 0.034 * size**0.7 + float(r.normal(0, 0.003)),
        )
        rows, cols = g.window(cx - length - 0.02, cy - 0.05 * size, cx + length + 0.02, cy + 0.08 * size)
        dx = (g.x[:, cols] - np.float32(cx)) * np.float32(sign)
        middle = np.float32(cy) + np.float32(tilt) * dx + np.float32(1.5) * dx * dx
        taper = np.sqrt(np.clip(1.0 - (dx / np.float32(length)) ** 2, 0.0, 1.0))
        band = step(np.float32(thick) * taper - np.abs(g.y[rows] - middle), 0.0045) * (taper > 0)
        opacity[rows, cols] = np.maximum(opacity[rows, cols], band)
    opacity *= scene.lungs[side]
    # The plates and the lung squeezed between them are one lesion.
    mask = _closed(opacity > 0.5, 0.020 * size**0.7 * g.unit)
    strength = np.float32(r.uniform(0.85, 1.0))
    phrase = _zone_phrase(side, zone)
    return Effect((side,), phrase, f"{SIDES[side]} lung", (mask,), _toward(strength * opacity, 0.56))


def _lung_mass(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    (side,), zone = layout.side["lung mass"], layout.zone["lung mass"]
    radius = layout.size["lung mass"]
    x, y = _lung_point(scene, side, zone, r, radius)
    opacity = _blob(scene, x, y, radius, r, 0.06, 0.018)
    strength = np.float32(r.uniform(0.80, 1.0))
    phrase = _zone_phrase(side, zone)
    return Effect((side,), phrase, f"{SIDES[side]} lung", (opacity > 0.5,), _toward(strength * opacity, 0.62))


def _nodule(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    (side,), zone = layout.side["nodule"], layout.zone["nodule"]
    radius = _spread(r, 0.024, 0.036)
    x, y = _lung_point(scene, side, zone, r, radius)
    opacity = _blob(scene, x, y, radius, r, 0.04, 0.010)
    strength = np.float32(r.uniform(0.80, 1.0))
    phrase = _zone_phrase(side, zone)
    return Effect((side,), phrase, f"{SIDES[side]} lung", (opacity > 0.5,), _toward(strength * opacity, 0.64))


def _pneumothorax(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    (side,) = layout.side["pneumothorax"]
    a, g = scene.a, scene.grid
    gap = _spread(r, 0.050, 0.115)
    top = float(r.uniform(0.7, 1.1)) * gap
    end = _spread(r, 0.22, 0.80)
    t = (g.y - a.apex[side]) / (a.angle[side] - a.apex[side])
    rim = np.float32(gap) * np.clip((np.float32(end) - t) / np.float32(0.75 * end), 0.0, 1.0) ** np.float32(0.7)
    rim = np.minimum(rim, np.float32(gap)) * np.clip(t / np.float32(0.5 * end), 0.1, 1.0)
    whole = scene.lungs[side]
    # The collapsed lung is drawn in from the wall and its apex has sunk, more or less far towards the mediastinum.
    lateral = np.abs(g.x - np.float32(a.shift)) / np.float32(a.width[side])
    sunk = np.float32(top) * np.clip((lateral - np.float32(r.uniform(0.0, 0.55))) / np.float32(0.4), 0.0, 1.0)
    lung = np.minimum(scene.lung(side, rim.astype(np.float32), sunk), whole)
    # Where wall and line nearly touch, their soft edges leave no space between them.
    space = np.clip((whole - lung - np.float32(0.25)) / np.float32(0.75), 0.0, 1.0)
    pleura = np.clip(np.float32(4.0) * lung * (np.float32(1.0) - lung), 0.0, 1.0) * whole * (whole > 0.95)
    mask = (space > 0.5) & (whole > 0.5)
    darker = np.float32(r.uniform(0.10, 0.13))
    amount = -space * (scene.vessels + darker) + np.float32(0.18) * pleura * (space > 0)
    location = f"{SIDES[side]} apex and lateral pleural space"
    return Effect((side,), location, f"{SIDES[side]} lung", (mask,), _add(amount.astype(np.float32)))


def _pleural_effusion(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    sides = layout.side["pleural effusion"]
    a, g = scene.a, scene.grid
    heights = layout.size["pleural effusion"] * r.uniform(0.85, 1.0, 2)
    total, masks = g.zeros(), []
    for side in sides:
        sign = (-1.0, 1.0)[side]
        u = sign * (g.x - scene.midline(g.y)) / np.float32(a.width[side])
        # The meniscus climbs along the chest wall.
        surface = np.float32(a.angle[side] - heights[side]) + np.float32(0.42 * heights[side]) * np.clip(
            (np.float32(0.97) - u) / np.float32(0.55), 0.0, 1.0
        ) ** np.float32(0.8)
        below = step(g.y - surface, 0.009)
        masks.append((below > 0.5) & (scene.lungs[side] > 0.5))
        # Fluid touches wall and diaphragm: no seam of lung is left where both edges are soft.
        fluid = below * np.clip(np.float32(2.5) * scene.lungs[side], 0.0, 1.0)
        total = np.maximum(total, fluid)
    # A large effusion is more than its angle.
    large = layout.size["pleural effusion"] > 0.24
    concept = f"{SIDES[sides[0]]} lung" if large else _both(sides, "costophrenic angle", "costophrenic angles")
    location = _both(sides, "pleural base", "pleural bases")
    strength = np.float32(r.uniform(0.88, 1.0))
    return Effect(sides, location, concept, tuple(masks), _toward(strength * total, 0.74))


def _clavicle_fracture(scene: Scene, layout: Layout, r: np.random.Generator) -> Effect:
    (side,) = layout.side["clavicle fracture"]
    a = scene.a
    at = float(r.uniform(0.34, 0.70)) * (a.width[side] + 0.075)
    gap = float(r.uniform(0.016, 0.028))
    shift = float(r.uniform(0.026, 0.044))
    tail = 0.095

    def offset(d: Field) -> tuple[Field, Field]:
        """The lateral fragment drops and joins its old course again; the medial one rises a little."""
        lateral = np.clip(1.0 - (d - at) / tail, 0.0, 1.0) * (d > at) * np.clip((d - at) / 1e-6, 0, 1)
        medial = np.clip(1.0 - (at - d) / (0.7 * tail), 0.0, 1.0) * (d <= at)
        dy = shift * lateral**1.2 - 0.45 * shift * medial**1.5
        visible = step((np.abs(d - at) - gap / 2).astype(np.float32), 0.003)
        return dy.astype(np.float32), visible

    amount = scene.bone_share * (scene.clavicle(side, offset) - scene.clavicles[side])
    # Displaced bone, missing bone and the gap between them.
    mask = _closed(np.abs(amount) > 0.03, 0.010 * scene.grid.unit)
    name = f"{SIDES[side]} clavicle"
    return Effect((side,), name, name, (mask,), _add(amount))


def _closed(mask: Mask, radius: float) -> Mask:
    """Morphological closing with a square of the given half-width in pixels (at least 1)."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = 2 * max(1, round(radius)) + 1
    grown = maximum_filter(mask, size, mode="constant", cval=False)
    return np.asarray(minimum_filter(grown, size, mode="constant", cval=True), bool) | mask


_EFFECTS: dict[str, Callable[[Scene, Layout, np.random.Generator], Effect]] = {
    "cardiomegaly": _cardiomegaly,
    "aortic enlargement": _aortic_enlargement,
    "hilar enlargement": _hilar_enlargement,
    "consolidation": _consolidation,
    "atelectasis": _atelectasis,
    "lung mass": _lung_mass,
    "nodule": _nodule,
    "pneumothorax": _pneumothorax,
    "pleural effusion": _pleural_effusion,
    "clavicle fracture": _clavicle_fracture,
}
