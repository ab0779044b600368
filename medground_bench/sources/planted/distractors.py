"""What lies on radiographs and no question asks about: lead markers, burnt-in text, tubes, wires, clips."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from medground_bench.sources.planted.anatomy import Field
    from medground_bench.sources.planted.canvas import Canvas, Window

__all__ = ["DISTRACTORS", "draw_distractor"]

DISTRACTORS: tuple[str, ...] = ("marker", "text", "tube", "electrode", "clips")
"""Kinds of distractors."""

_WORDS = ("PORTABLE", "SUPINE", "UPRIGHT", "AP SEMI-ERECT", "MOBILE 2", "ROOM 14", "07:35", "21:10", "PA ERECT")
_METAL = 2.2  # attenuation that lead and steel add to what lies behind
_PLASTIC = 0.32


def draw_distractor(kind: str, canvas: Canvas, rng: np.random.Generator) -> tuple[Window, Field]:
    """Draw one: its window and what it adds to the attenuation there."""
    return _DRAW[kind](canvas, rng)


def _marker(canvas: Canvas, rng: np.random.Generator) -> tuple[Window, Field]:
    """A lead letter beside a shoulder, on the side it names."""
    side = int(rng.integers(2))
    rows, columns = canvas.anatomy.shape
    size = rng.uniform(0.045, 0.075) * columns
    x = columns * (rng.uniform(0.05, 0.14) if side == 0 else rng.uniform(0.86, 0.95))
    return _letters(canvas, "RL"[side], x, rows * rng.uniform(0.05, 0.22), size, rng.uniform(-25, 25), _METAL)


def _text(canvas: Canvas, rng: np.random.Generator) -> tuple[Window, Field]:
    rows, columns = canvas.anatomy.shape
    word = _WORDS[int(rng.integers(len(_WORDS)))]
    size = rng.uniform(0.022, 0.034) * columns
    x = columns * (rng.uniform(0.14, 0.25) if rng.random() < 0.5 else rng.uniform(0.75, 0.86))
    y = rows * (rng.uniform(0.03, 0.08) if rng.random() < 0.7 else rng.uniform(0.92, 0.97))
    return _letters(canvas, word, x, y, size, 0.0, 1.8)


@lru_cache(maxsize=64)
def _glyphs(word: str) -> Image.Image:
    font = ImageFont.load_default(96)
    x1, y1, x2, y2 = (int(v) for v in font.getbbox(word))
    image = Image.new("L", (x2 - x1 + 24, y2 - y1 + 24))
    ImageDraw.Draw(image).text((12 - x1, 12 - y1), word, fill=255, font=font, stroke_width=3, stroke_fill=255)
    return image


def _letters(
    canvas: Canvas, word: str, x: float, y: float, size: float, turn: float, amount: float
) -> tuple[Window, Field]:
    glyphs = _glyphs(word)
    if turn:
        glyphs = glyphs.rotate(turn, Image.Resampling.BICUBIC, expand=True)
    width = size * glyphs.size[0] / glyphs.size[1]
    rows, columns = canvas.anatomy.shape
    x, y = min(max(x, width / 2 + 1), columns - width / 2 - 1), min(max(y, size / 2 + 1), rows - size / 2 - 1)
    window = canvas.window(x - width / 2, y - size / 2, x + width / 2, y + size / 2)
    height, across = window.shape
    shape = np.asarray(glyphs.resize((across, height), Image.Resampling.BOX), np.float32) / np.float32(255.0)
    return window, np.float32(amount) * shape


def _path(window: Window, points: np.ndarray) -> Field:
    """Distance of every pixel to a polyline, in cells."""
    out = np.full(window.shape, np.inf, np.float32)
    for (x1, y1), (x2, y2) in pairwise(points):
        dx, dy = x2 - x1, y2 - y1
        t = np.clip(((window.x - x1) * dx + (window.y - y1) * dy) / max(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
        np.minimum(out, np.hypot(window.x - x1 - t * dx, window.y - y1 - t * dy), out=out)
    return out


def _spline(points: list[tuple[float, float]], steps: int = 24) -> np.ndarray:
    """A smooth curve through points (Catmull-Rom)."""
    p = np.array([points[0], *points, points[-1]], float)
    out = []
    t = np.linspace(0.0, 1.0, max(2, steps // (len(points) - 1)), endpoint=False)[:, None]
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        out.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate([*out, p[-1:]])


def _curve(
    canvas: Canvas, points: list[tuple[float, float]], half: float, wall: float, core: float
) -> tuple[Window, Field]:
    """A tube or wire of half-width ``half``: ``wall`` at its edges, ``core`` within."""
    path = _spline(points)
    low, high = path.min(0) - 2 * half - 1, path.max(0) + 2 * half + 1
    window = canvas.window(low[0], low[1], high[0], high[1])
    soft = max(0.6 * window.scale[0], 0.25 * half)
    off = _path(window, path)
    inside = np.clip((np.float32(half) - off) / np.float32(soft) + np.float32(0.5), 0.0, 1.0)
    edge = np.exp(-(((off - np.float32(0.8 * half)) / np.float32(0.3 * half + 0.3 * window.scale[0])) ** 2))
    return window, (np.float32(core) * inside + np.float32(wall) * edge * inside).astype(np.float32)


def _tube(canvas: Canvas, rng: np.random.Generator) -> tuple[Window, Field]:
    """An endotracheal or gastric tube along the midline, or a central line from the neck or arm."""
    a = canvas.anatomy
    w, mid, top = a.width, a.midline, min(a.apex)

    def jitter(scale: float) -> float:
        return float(scale * w * rng.normal())

    kind = rng.random()
    if kind < 0.35:  # endotracheal
        end = top + rng.uniform(0.16, 0.26) * (max(a.base) - top)
        points = [(mid + jitter(0.02), 0.0), (mid + jitter(0.01), 0.5 * (top + end)), (mid + jitter(0.01), end)]
        return _curve(canvas, points, 0.011 * w, 0.22, 0.10)
    if kind < 0.65:  # gastric
        bottom = float(a.shape[0])
        end = min(max(a.base) + 0.16 * w, bottom)
        points = [
            (mid + jitter(0.02), 0.0),
            (mid + 0.01 * w + jitter(0.01), 0.5 * (top + max(a.base))),
            (mid + 0.03 * w + jitter(0.01), max(a.base) - 0.02 * w),
            (mid + 0.14 * w + jitter(0.03), end),
        ]
        return _curve(canvas, points, 0.0058 * w, 0.28, 0.12)
    side = int(rng.integers(2))
    sign = (-1.0, 1.0)[side]
    start = mid + sign * rng.uniform(0.25, 0.45) * w
    end = top + rng.uniform(0.30, 0.42) * (max(a.base) - top)
    points = [
        (start, top + rng.uniform(0.02, 0.10) * w),
        (mid + sign * 0.14 * w, top + 0.06 * w + jitter(0.01)),
        (mid - 0.045 * w, top + 0.16 * w + jitter(0.01)),
        (mid - 0.055 * w + jitter(0.008), end),
    ]
    return _curve(canvas, points, 0.0036 * w, 0.15, _PLASTIC)


def _electrode(canvas: Canvas, rng: np.random.Generator) -> tuple[Window, Field]:
    """A monitoring electrode with its wire."""
    a = canvas.anatomy
    side = int(rng.integers(2))
    sign, w = (-1.0, 1.0)[side], a.width
    y = a.apex[side] + rng.uniform(0.15, 0.85) * (a.base[side] - a.apex[side])
    x = a.midline + sign * rng.uniform(0.18, 0.50) * w
    away = (x + sign * rng.uniform(0.05, 0.20) * w, y + rng.uniform(0.25, 0.45) * w)
    points = [(x, y), (x + 0.06 * w * rng.normal(), y + 0.12 * w), away]
    window, wire = _curve(canvas, points, 0.0026 * w, 0.1, 0.35)
    r = np.hypot(window.x - np.float32(x), window.y - np.float32(y)) / np.float32(0.016 * w)
    button = np.clip((np.float32(1.0) - r) * np.float32(4.0) + np.float32(0.5), 0.0, 1.0)
    ring = np.exp(-(((r - np.float32(0.75)) / np.float32(0.2)) ** 2))
    return window, np.maximum(wire, np.float32(0.7) * button + np.float32(0.8) * ring * button)


def _clips(canvas: Canvas, rng: np.random.Generator) -> tuple[Window, Field]:
    """A handful of surgical clips, close together."""
    a = canvas.anatomy
    w, side = a.width, int(rng.integers(2))
    x = a.midline + (-1.0, 1.0)[side] * rng.uniform(0.04, 0.34) * w
    y = min(a.apex) + rng.uniform(0.15, 0.85) * (max(a.base) - min(a.apex))
    window = canvas.window(x - 0.08 * w, y - 0.08 * w, x + 0.08 * w, y + 0.08 * w)
    out = np.zeros(window.shape, np.float32)
    half = max(0.0035 * w, 0.5 * window.scale[0])
    for _ in range(int(rng.integers(3, 7))):
        cx, cy, turn = x + 0.035 * w * rng.normal(), y + 0.035 * w * rng.normal(), rng.uniform(0, np.pi)
        dx, dy = 0.009 * w * np.cos(turn), 0.009 * w * np.sin(turn)
        off = _path(window, np.array([(cx - dx, cy - dy), (cx + dx, cy + dy)]))
        soft = np.float32(0.6 * window.scale[0])
        out = np.maximum(out, np.clip((np.float32(half) - off) / soft + np.float32(0.5), 0.0, 1.0))
    return window, np.float32(_METAL) * out


_DRAW: dict[str, Callable[[Canvas, np.random.Generator], tuple[Window, Field]]] = {
    "marker": _marker,
    "text": _text,
    "tube": _tube,
    "electrode": _electrode,
    "clips": _clips,
}
