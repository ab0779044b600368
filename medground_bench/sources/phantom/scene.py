"""The normal chest: attenuation of body, lungs, bones, heart and vessels on a pixel grid, with their masks."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np

from medground_bench.sources.phantom.anatomy import Anatomy, Pose, stream
from medground_bench.sources.phantom.shapes import Field, Grid, Mask, resize_field, smooth_row, step
from medground_bench.sources.phantom.vessels import draw_vessels

__all__ = ["Scene", "at"]

_EDGE = 0.0055  # half-width of the edges of large structures
_LOW = 256  # pixels in a plane unit of the grid on which the smooth parts are computed


def at(line: Callable[[Field], Field], value: float) -> float:
    """A line of the scene at one point."""
    return float(line(np.array([value], np.float32))[0])


class Scene:
    """Everything of a phantom that does not depend on which findings are present.

    Parameters
    ----------
    seed : int
        Seeds the vessels and the spine's texture; the shape is ``anatomy``.
    anatomy : Anatomy
        The chest.
    pose : Pose
        The part of the anatomical plane that the image shows.
    width, height : int
        Pixels.
    """

    def __init__(self, seed: int, anatomy: Anatomy, pose: Pose, width: int, height: int) -> None:
        self.seed, self.a = seed, anatomy
        self.grid = Grid.of(width, height, min(width, height) * pose.zoom, pose.centre)

    # Lines -------------------------------------------------------------------------------------------------------

    def midline(self, y: Field) -> Field:
        """x of the spine at heights ``y``."""
        return np.float32(self.a.shift) - np.float32(self.a.tilt) * (y - np.float32(0.5))

    def axis(self, y: Field) -> Field:
        """x of the mediastinum at heights ``y``: the midline, moved by the patient's turn."""
        return self.midline(y) + np.float32(self.a.turn)

    def wall(self, side: int, y: Field) -> Field:
        """Distance of the inner chest wall from the midline on a side (0 right, 1 left) at heights ``y``."""
        a = self.a
        t = (y - a.apex[side]) / (a.angle[side] - a.apex[side])
        rise = np.sqrt(np.clip(1.0 - np.clip(1.0 - t / 0.66, 0.0, 1.0) ** 2.5, 0.0, 1.0))
        waist = 1.0 - 0.05 * np.clip((t - 0.72) / 0.28, 0.0, 1.5) ** 2
        return (a.width[side] * rise * waist).astype(np.float32)

    def inner(self, side: int, y: Field) -> Field:
        """Distance of the lung's medial border from the midline."""
        a = self.a
        t = (y - a.apex[side]) / (a.angle[side] - a.apex[side])
        turn = a.turn if side else -a.turn
        border = self._trunk_half(t) + turn + 0.040 * np.clip(1.0 - t / 0.13, 0.0, 1.0) ** 1.5
        return np.broadcast_to(border, y.shape).astype(np.float32)

    def diaphragm(self, side: int, x: Field) -> Field:
        """y of a diaphragm dome at abscissae ``x``."""
        a = self.a
        u = np.abs(x - a.shift + a.tilt * (a.angle[side] - 0.5)) / a.width[side]
        rise = 1.0 - np.where(
            u > a.dome_centre[side],
            np.abs((u - a.dome_centre[side]) / (0.99 - a.dome_centre[side])) ** 2.6,
            0.42 * np.abs((u - a.dome_centre[side]) / a.dome_centre[side]) ** 2.0,
        )
        return (a.angle[side] - a.dome[side] * np.clip(rise, -0.6, 1.0)).astype(np.float32)

    def _trunk_half(self, t: Field) -> Field:
        """Half-width of the upper mediastinum at relative heights ``t``: waisted between inlet and hila."""
        return (self.a.trunk * (1.02 + 0.13 * np.cos(9.0 * np.clip(t, 0.0, 0.7) + 0.4))).astype(np.float32)

    # Soft fields and masks of the normal chest ---------------------------------------------------------------------

    @cached_property
    def lungs(self) -> tuple[Field, Field]:
        """Opacity of the (right, left) lung field, the part behind the heart included, 0..1."""
        return (self.lung(0), self.lung(1))

    def lung(self, side: int, rim: Field | float = 0.0, top: Field | float = 0.0) -> Field:
        """A lung field whose outer border is drawn in by ``rim`` (H, 1) and whose apex is lowered by ``top`` (1, W)."""
        g, sign = self.grid, (-1.0, 1.0)[side]
        d = np.float32(sign) * (g.x - self.midline(g.y))
        outer = self.wall(side, g.y - np.float32(top)) - rim
        lateral = step(np.minimum(outer - d, d - self.inner(side, g.y)), _EDGE)
        lateral *= step(self.diaphragm(side, g.x) - g.y, _EDGE)
        return lateral

    def lung_masks(self) -> tuple[Mask, Mask]:
        return (self.lungs[0] > 0.5, self.lungs[1] > 0.5)

    @cached_property
    def under(self) -> Field:
        """Opacity of the abdomen under the diaphragm, 0..1."""
        g, a = self.grid, self.a
        line = np.where(g.x < self.a.shift, self.diaphragm(0, g.x), self.diaphragm(1, g.x))
        middle = np.abs(g.x - self.a.shift) < 0.045
        line = np.where(middle, np.float32(self.a.heart_y + 0.11), line)
        edge = step(g.y - smooth_row(line, max(1, round(0.01 * g.unit))), 0.008)
        # Outside the ribs there is no dome: the body only grows denser downwards.
        d = g.x - self.midline(g.y)
        wall = np.where(d < 0, self.wall(0, g.y), self.wall(1, g.y))
        inside = step(wall + np.float32(0.012) - np.abs(d), 0.012)
        outside = np.clip((g.y - np.float32(a.angle[0] - 0.24)) / np.float32(0.34), 0.0, 1.0) ** 1.4
        return edge * inside + outside * (np.float32(1.0) - inside)

    def heart_level(self, across: float = 1.0, along: float = 1.0) -> Field:
        """Signed level of the cardiac silhouette (positive inside), about in plane units near its edge.

        ``across`` and ``along`` scale it about its upper right part, as an enlarged heart grows to the left and down.
        """
        a, g = self.a, self.grid
        cx = at(self.axis, a.heart_y)
        sx, sy = a.heart[0] * across, a.heart[1] * along
        rows, cols = g.window(cx - 0.34 * sx, a.heart_y - 0.36 * sy, cx + 0.44 * sx, a.heart_y + 0.36 * sy)
        level = np.full((g.height, g.width), -1.0, np.float32)
        x = (g.x[:, cols] - np.float32(cx)) / np.float32(sx)
        y = (g.y[rows] - np.float32(a.heart_y)) / np.float32(sy)
        total = np.zeros((y.size, x.size), np.float32)
        for ox, oy, rx, ry, turn in (
            (0.062, 0.030, 0.125, 0.088, a.heart_axis),
            (-0.026, 0.004, 0.066, 0.104, 0.12),
            (0.026, -0.085, 0.056, 0.085, -0.25),
        ):
            c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
            dx, dy = x - np.float32(ox), y - np.float32(oy)
            q = ((c * dx + s * dy) / np.float32(rx)) ** 2 + ((c * dy - s * dx) / np.float32(ry)) ** 2
            total = total + np.exp(np.float32(-2.0) * q)
        level[rows, cols] = (np.log(total + np.float32(1e-12)) + np.float32(2.0)) * np.float32(0.024)
        # The heart rests on the diaphragm: its lower part is hidden by it.
        floor = np.where(g.x < a.shift, self.diaphragm(0, g.x), self.diaphragm(1, g.x)) + np.float32(0.012)
        floor = np.maximum(floor, np.float32(a.heart_y + 0.085))
        return np.minimum(level, floor - g.y)

    def heart(self, across: float = 1.0, along: float = 1.0) -> Field:
        """Opacity of the cardiac silhouette, 0..1; arguments as in :meth:`heart_level`."""
        return step(self.heart_level(across, along), _EDGE)

    @cached_property
    def normal_heart(self) -> Field:
        return self.heart()

    @cached_property
    def trunk(self) -> Field:
        """Opacity of the great vessels and the central soft tissue between the lungs, 0..1."""
        g, a = self.grid, self.a
        d = g.x - self.axis(g.y)
        t = (g.y - a.apex[0]) / (a.angle[0] - a.apex[0])
        return step(self._trunk_half(t) - np.abs(d), 0.012) * np.clip((t + 0.10) / 0.22, 0.0, 1.0)

    def knob(self, scale: float = 1.0) -> Field:
        """Opacity of the aortic knob, 0..1, enlarged by ``scale``."""
        a, g = self.a, self.grid
        radius = a.knob * scale
        cx = at(self.axis, a.knob_y) + a.trunk - 0.010 + 0.35 * (radius - a.knob)
        out = g.zeros()
        rows, cols = g.window(cx - 2 * radius, a.knob_y - 2.5 * radius, cx + 2 * radius, a.knob_y + 2.5 * radius)
        q = np.hypot((g.x[:, cols] - cx), (g.y[rows] - a.knob_y) / 1.2)
        out[rows, cols] = step(np.float32(radius) - q, _EDGE)
        return out

    @cached_property
    def hila(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Centres (x, y) of the right and left hilum."""
        a = self.a
        out = []
        for side, sign in enumerate((-1.0, 1.0)):
            y = a.hilum_y[side]
            x = at(self.midline, y) + sign * (a.trunk + 0.040) + a.turn
            out.append((x, y))
        return (out[0], out[1])

    # Bones ---------------------------------------------------------------------------------------------------------

    @cached_property
    def ribs(self) -> Field:
        """Attenuation of the ribs (posterior and anterior arcs)."""
        a, g = self.a, self.grid
        out = g.zeros()
        for side, sign in enumerate((-1.0, 1.0)):
            for k in range(10):
                y0 = a.apex[side] + 0.004 + k * a.rib_spacing
                reach = at(partial(self.wall, side), min(y0 + 0.035 + 0.010 * k, a.angle[side])) + 0.006
                drop = a.rib_drop * min(1.0, 0.45 + 0.14 * k)

                def posterior(u: Field, y0: float = y0, drop: float = drop) -> Field:
                    return np.float32(y0) + np.float32(drop) * (0.45 * u**2 + 0.55 * u**7) - 0.012 * np.sin(3.1 * u)

                self._arc(out, side, sign, posterior, 0.08, 1.0, reach, 0.0120, a.rib_contrast)
                if 1 <= k <= 7:
                    end = y0 + drop
                    sink = 0.045 + 0.011 * k

                    def anterior(u: Field, end: float = end, sink: float = sink) -> Field:
                        return np.float32(end) + np.float32(sink) * (1 - u) ** 0.8 - 0.03 * (1 - u) ** 3

                    self._arc(out, side, sign, anterior, 0.42, 1.0, reach, 0.0125, 0.62 * a.rib_contrast)
        return out

    def _arc(
        self,
        out: Field,
        side: int,
        sign: float,
        curve: Callable[[Field], Field],
        u0: float,
        u1: float,
        reach: float,
        half: float,
        amount: float,
    ) -> None:
        """Add one rib arc ``y = curve(u)``, ``u`` = distance from the midline / ``reach``, to ``out``."""
        g = self.grid
        centre = self.a.shift
        x0, x1 = sorted((centre + sign * u0 * reach, centre + sign * u1 * reach))
        _, cols = g.window(x0, 0, x1, 1)
        u = np.clip(sign * (g.x[0, cols] - centre) / reach, 0.0, 1.0)
        if u.size == 0:
            return
        y = curve(u) + self.a.tilt * (g.x[0, cols] - centre)
        # A steep arc is as wide across its course as a flat one.
        slope = np.gradient(y, g.x[0, cols]) if u.size > 2 else np.zeros_like(u)
        thick = half * np.minimum(np.sqrt(1 + slope**2), 2.6)
        rows, _ = g.window(0, float((y - 1.6 * thick).min()), 1, float((y + 1.6 * thick).max()))
        d = np.abs(g.y[rows] - y[None, :].astype(np.float32)) / thick[None, :].astype(np.float32)
        body = step(np.float32(1.0) - d, 0.25)
        # Cortical bone: the rims are denser than the marrow.
        rim = np.clip(1.0 - np.abs(d - np.float32(0.82)) * np.float32(4.5), 0.0, 1.0)
        fade = np.clip(np.minimum((u - u0) / 0.10, 1.0), 0.0, 1.0).astype(np.float32)
        out[rows, cols] += np.float32(amount) * fade[None, :] * (np.float32(0.7) * body + np.float32(0.6) * rim)

    def clavicle(self, side: int, offset: object = None) -> Field:
        """Attenuation of a clavicle; ``offset(d)`` -> (dy, visibility) displaces it at distances ``d``."""
        a, g, sign = self.a, self.grid, (-1.0, 1.0)[side]
        start, end = 0.036 + sign * a.turn, a.width[side] + 0.075
        out = g.zeros()
        centre = a.shift
        x0, x1 = sorted((centre + sign * start, centre + sign * end))
        _, cols = g.window(x0, 0, x1, 1)
        d = sign * (g.x[0, cols] - centre)
        t = np.clip((d - start) / (end - start), 0.0, 1.0)
        y = self.clavicle_line(side, d)
        seen = step((np.minimum(d - start, end - d)).astype(np.float32), 0.006)
        if callable(offset):
            dy, visible = offset(d)
            y, seen = y + dy, seen * visible
        half = np.float32(0.0115) + np.float32(0.007) * (np.float32(1.0) - t) ** 4 + np.float32(0.004) * t**4
        if d.size == 0:
            return out
        rows, _ = g.window(0, float((y - 0.04).min()), 1, float((y + 0.04).max()))
        q = np.abs(g.y[rows] - y[None, :].astype(np.float32)) / half[None, :].astype(np.float32)
        rim = np.clip(1.0 - np.abs(q - np.float32(0.8)) * np.float32(4.0), 0.0, 1.0)
        band = step(np.float32(1.0) - q, 0.28) * np.float32(0.17) + rim * np.float32(0.07)
        out[rows, cols] = band * seen[None, :].astype(np.float32)
        return out

    def clavicle_line(self, side: int, d: Field) -> Field:
        """y of a clavicle's middle at distances ``d`` from the midline."""
        a, sign = self.a, (-1.0, 1.0)[side]
        end = a.width[side] + 0.075
        t = np.clip(d / end, 0.0, 1.0)
        y = a.clavicle_y - a.clavicle_rise * t + 0.016 * np.sin(2 * np.pi * t) + a.tilt * sign * d
        return y.astype(np.float32)

    @cached_property
    def bone_share(self) -> Field:
        """How much of a clavicle shows: less where the mediastinum lies over it."""
        return np.float32(0.9) - np.float32(0.5) * self.trunk

    @cached_property
    def clavicles(self) -> tuple[Field, Field]:
        return (self.clavicle(0), self.clavicle(1))

    # Vessels -------------------------------------------------------------------------------------------------------

    @cached_property
    def vessels(self) -> Field:
        """Attenuation of the pulmonary vessels: two trees that leave the hila and thin out."""
        field = draw_vessels(stream(self.seed, "vessels"), self.grid, self.hila)
        return field * np.maximum(self.lungs[0], self.lungs[1])

    # Attenuation -----------------------------------------------------------------------------------------------------

    @cached_property
    def attenuation(self) -> Field:
        """Attenuation of the normal chest, (H, W), in display units (about 0 air .. 1 dense)."""
        g, a = self.grid, self.a
        depth = self._body()
        air = np.maximum(self.lungs[0], self.lungs[1])
        depth -= air * self._aeration()
        depth += np.float32(0.20) * self.under * (depth > 0.2)
        depth += self.ribs * (np.float32(0.22) + np.float32(0.78) * air)
        depth += self.vessels
        for x, y in self.hila:
            q = np.hypot((g.x - np.float32(x)) / np.float32(0.034), (g.y - np.float32(y)) / np.float32(0.062))
            depth += np.float32(0.085) * np.clip(np.float32(1.0) - q * q, 0.0, 1.0) * air
        soft = np.maximum(np.maximum(np.float32(0.86) * self.trunk, self.normal_heart), np.float32(0.92) * self.knob())
        depth += self.covering(soft, depth)
        for side in (0, 1):
            depth += self.bone_share * self.clavicles[side]
        depth += self._spine_and_airway()
        if a.bubble:
            depth -= self._bubble()
        return depth

    def covering(self, opacity: Field, depth: Field) -> Field:
        """What soft tissue of a given opacity adds to ``depth``: it hides most of the lung detail behind it."""
        return np.maximum(np.float32(0.66) - np.float32(0.85) * depth, np.float32(0.05)) * opacity

    def _aeration(self) -> Field:
        g, a = self.grid, self.a
        low = self._low()
        y = (low.y - a.apex[0]) / (a.angle[0] - a.apex[0])
        d = np.abs(low.x - a.shift) / a.width[0]
        field = 0.40 - 0.06 * np.clip(y - 0.55, 0, 1) - 0.05 * np.clip(d - 0.55, 0, 1) - 0.05 * np.clip(0.25 - y, 0, 1)
        return resize_field(np.broadcast_to(field, (low.height, low.width)).astype(np.float32), g.width, g.height)

    def _low(self) -> Grid:
        g = self.grid
        factor = min(1.0, _LOW / g.unit)
        if factor == 1.0:
            return g
        width, height = max(2, round(g.width * factor)), max(2, round(g.height * factor))
        return Grid.of(width, height, g.unit * height / g.height, g.centre)

    def _body(self) -> Field:
        """Soft tissue of trunk, neck, shoulders, arms and breasts, computed at low resolution."""
        a, g, low = self.a, self.grid, self._low()
        x, y = low.x, low.y
        d = np.abs(x - self.midline(y))
        neck = 0.082 + 0.025 * a.habitus
        slope = np.clip(d - neck, 0.0, None)
        top = a.shoulder + a.shoulder_slope * slope**1.3 - 0.5 * np.clip(neck * 1.25 - d, 0.0, None)
        below = np.clip((y - top) / 0.16, 0.0, None)
        depth = (0.50 + 0.10 * a.habitus) * (1.0 - np.exp(-2.2 * below))
        # Under the arm pits: trunk, a gap of air, the arm.
        wall = a.torso + 0.02 * a.habitus * np.sin(3.0 * (y - a.axilla))
        q = np.clip(d / (wall + 0.03), 0.0, 1.0)
        trunk = 0.17 * (1.0 - q**4) + 0.04
        depth = depth * (0.80 + trunk)
        open_ = np.clip(y - a.axilla, 0.0, None) * a.gap + 1e-4
        gap = step((d - wall).astype(np.float32), 0.012) * step((wall + 1.6 * open_ - d).astype(np.float32), 0.012)
        gap = gap * np.clip((y - a.axilla) / 0.05, 0.0, 1.0)
        arm = step((d - wall - 1.6 * open_).astype(np.float32), 0.012)
        depth = depth * (1.0 - gap) - 0.06 * arm * np.clip((y - a.axilla) / 0.1, 0, 1)
        depth = depth + self._shoulder_bones(low, d)
        if a.breast:
            for side, sign in enumerate((-1.0, 1.0)):
                by = a.angle[side] - 0.02 + 0.03 * a.breast
                qb = np.hypot((x - a.shift - sign * 0.215) / 0.17, (y - by + 0.06) / (0.10 + 0.05 * a.breast))
                depth = depth + 0.075 * a.breast * np.sqrt(np.clip(1.0 - qb**2, 0.0, 1.0))
        return resize_field(np.clip(depth, 0.0, None).astype(np.float32), g.width, g.height)

    def _shoulder_bones(self, low: Grid, d: Field) -> Field:
        a = self.a
        y = low.y
        reach = a.width[0] + 0.105
        head = step((0.062 - np.hypot(d - reach - 0.02, (y - a.clavicle_y - 0.055))).astype(np.float32), 0.014)
        shaft = step((0.034 - np.abs(d - reach - 0.045 - 0.10 * (y - a.clavicle_y))).astype(np.float32), 0.012)
        shaft = shaft * np.clip((y - a.clavicle_y - 0.06) / 0.05, 0.0, 1.0)
        blade = step(
            (0.006 - np.abs(d - (reach - 0.085 - 0.22 * (y - a.clavicle_y - 0.09) ** 1))).astype(np.float32), 0.008
        )
        blade = (
            blade * np.clip((y - a.clavicle_y - 0.03) / 0.05, 0, 1) * np.clip((a.clavicle_y + 0.27 - y) / 0.06, 0, 1)
        )
        return 0.11 * head + 0.10 * shaft * (1 - head) + 0.045 * blade

    def _spine_and_airway(self) -> Field:
        g, a = self.grid, self.a
        low = self._low()
        d = low.x - self.midline(low.y)
        column = step((0.032 - np.abs(d)).astype(np.float32), 0.009)
        discs = 0.75 + 0.25 * np.cos(2 * np.pi * low.y / (0.048 + 0.012 * low.y)) ** 2
        spinous = np.clip(1.0 - np.hypot(d / 0.008, (np.mod(low.y, 0.055) - 0.03) / 0.014), 0.0, 1.0)
        spine = 0.075 * column * discs + 0.06 * spinous
        carina = a.hilum_y[0] - 0.055
        air_d = low.x - self.axis(low.y)
        trachea = step((0.0165 - np.abs(air_d)).astype(np.float32), 0.007) * step(
            (carina - low.y).astype(np.float32), 0.02
        )
        fork = np.clip(low.y - carina + 0.01, 0.0, None)
        bronchi = np.zeros_like(trachea)
        for sign, spread in ((-1.0, 0.55), (1.0, 0.95)):
            bronchi = np.maximum(
                bronchi, step((0.011 - np.abs(air_d - sign * spread * fork)).astype(np.float32), 0.006)
            )
        bronchi = bronchi * step((carina + 0.055 - low.y).astype(np.float32), 0.02) * (fork > 0)
        field = spine - 0.115 * trachea - 0.07 * bronchi
        return resize_field(field.astype(np.float32), g.width, g.height)

    def _bubble(self) -> Field:
        g, a, low = self.grid, self.a, self._low()
        cx, cy = (
            a.shift + 0.15,
            at(partial(self.diaphragm, 1), a.shift + 0.15) + a.bubble * 0.75 + 0.022,
        )
        q = np.hypot((low.x - cx) / (1.35 * a.bubble), (low.y - cy) / (0.75 * a.bubble))
        field = 0.24 * step((1.0 - q).astype(np.float32), 0.25)
        return resize_field(field.astype(np.float32), g.width, g.height)
