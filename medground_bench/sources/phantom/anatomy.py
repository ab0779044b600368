"""Parameters of a procedural chest: drawn from the seed alone, never from the findings that are present.

Lengths are in units of the anatomical plane, a square in which the chest always has about the same size: x = 0 on its
vertical axis, y = 0 at its top and y = 1 at its bottom. The patient's right is on the viewer's left (x < 0). A
:class:`Pose` says which part of the plane the image shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SIDES", "Anatomy", "Exposure", "Pose", "draw_anatomy", "draw_exposure", "draw_pose", "stream"]

SIDES: tuple[str, str] = ("right", "left")
"""The patient's sides, in the order in which the viewer sees them from left to right."""

# One random stream per concern: drawing more numbers in one never shifts another.
_STREAMS = ("anatomy", "exposure", "noise", "presence", "layout", "texture", "vessels", "pose")


def stream(seed: int, name: str) -> np.random.Generator:
    """Random generator of one concern (or one finding) of a phantom.

    Parameters
    ----------
    seed : int
        The phantom's seed, not negative.
    name : str
        The concern; different names give independent streams.
    """
    key = _STREAMS.index(name) if name in _STREAMS else int.from_bytes(name.encode(), "big")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, key])))


@dataclass(frozen=True)
class Anatomy:
    """Shape of one chest; pairs are (patient's right, patient's left), lengths in plane units."""

    habitus: float  # 0 slim .. 1 stout
    shift: float  # midline offset
    tilt: float  # in-plane rotation, radians
    turn: float  # rotation about the long axis: the mediastinum moves against the spine
    apex: tuple[float, float]  # y of the lung apices
    angle: tuple[float, float]  # y of the costophrenic angles
    width: tuple[float, float]  # half-width of the thorax inside the ribs
    dome: tuple[float, float]  # height of the diaphragm domes over the costophrenic angles
    dome_centre: tuple[float, float]  # where a dome peaks, as a fraction of the half-width
    heart: tuple[float, float]  # scale of the heart, across and along
    heart_axis: float  # slope of its long axis, radians
    heart_y: float
    trunk: float  # half-width of the upper mediastinum
    knob: float  # radius of the aortic knob
    knob_y: float
    hilum_y: tuple[float, float]
    shoulder: float  # y where the neck turns into the shoulders
    shoulder_slope: float
    torso: float  # half-width of the body wall under the arms
    axilla: float  # y of the arm pits
    gap: float  # how fast the air between arm and trunk opens
    clavicle_y: float
    clavicle_rise: float
    rib_spacing: float
    rib_contrast: float
    rib_drop: float
    breast: float  # 0: none
    bubble: float  # radius of the gastric bubble, 0: none


def draw_anatomy(seed: int) -> Anatomy:
    """Draw a chest from the seed."""
    r = stream(seed, "anatomy")

    def n(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(r.standard_normal(), -2.2, 2.2))

    def pair(mean: tuple[float, float], common: float, own: float) -> tuple[float, float]:
        c = n(0.0, common)
        return (mean[0] + c + n(0.0, own), mean[1] + c + n(0.0, own))

    habitus = float(r.beta(2.0, 2.2))
    apex = n(0.130, 0.018)
    depth = n(0.630, 0.046) - 0.07 * (habitus - 0.45)  # inspiration
    tilt = n(0.0, 0.036)
    angle = apex + depth
    width = n(0.345, 0.015)
    turn = n(0.0, 0.010)
    size = n(1.0, 0.05)
    dome = n(0.112, 0.013)
    return Anatomy(
        habitus=habitus,
        shift=n(0.0, 0.014),
        tilt=tilt,
        turn=turn,
        # The tilt lifts one side and lowers the other.
        apex=(apex - 0.22 * tilt + n(0, 0.004), apex + 0.22 * tilt + n(0, 0.004)),
        angle=(angle - 0.30 * tilt + n(0, 0.006), angle + 0.30 * tilt + n(0.008, 0.006)),
        width=(width - 0.6 * turn + n(0, 0.004), width + 0.6 * turn + n(0, 0.004)),
        dome=pair((dome + 0.009, dome - 0.009), 0.0, 0.006),
        dome_centre=pair((0.44, 0.47), 0.03, 0.02),
        heart=(size * n(1.0, 0.045), size * n(1.0, 0.035)),
        heart_axis=n(0.60, 0.08),
        heart_y=angle - dome - n(0.072, 0.008),
        trunk=n(0.056, 0.005) + 0.012 * habitus,
        knob=n(0.034, 0.004),
        knob_y=apex + n(0.170, 0.016),
        hilum_y=(apex + depth * n(0.470, 0.015), apex + depth * n(0.440, 0.015)),
        shoulder=apex - n(0.100, 0.02),
        shoulder_slope=n(0.26, 0.06),
        torso=width + n(0.055, 0.008) + 0.060 * habitus,
        axilla=apex + n(0.30, 0.03),
        gap=max(0.0, n(0.16, 0.09)),
        clavicle_y=apex + n(0.098, 0.012),
        clavicle_rise=n(0.088, 0.018),
        rib_spacing=depth * n(0.1020, 0.003),
        rib_contrast=n(0.078, 0.012),
        rib_drop=n(0.085, 0.012),
        breast=float(r.random() < 0.45) * float(r.uniform(0.3, 1.0)),
        bubble=float(r.random() < 0.6) * float(r.uniform(0.030, 0.055)),
    )


@dataclass(frozen=True)
class Pose:
    """Which part of the anatomical plane the image shows: distance, centring and cropping.

    Attributes
    ----------
    zoom : float
        Shorter image sides in one plane unit.
    centre : (float, float)
        Point of the plane in the middle of the image.
    """

    zoom: float
    centre: tuple[float, float]


def draw_pose(seed: int, anatomy: Anatomy) -> Pose:
    """Draw the pose from the seed: the lungs fill little or much of the image and lie anywhere in it.

    Of a chest that nearly fills the image up to 2 % of a side may be cropped.
    """
    r = stream(seed, "pose")
    a = anatomy
    box = (a.shift - a.width[0], min(a.apex), a.shift + a.width[1], max(a.angle))
    zoom = float(np.exp(r.uniform(np.log(0.88), np.log(1.38))))
    zoom = min(zoom, 0.96 / (box[2] - box[0]), 0.96 / (box[3] - box[1]))
    centre = []
    for low, high, reach in ((box[0], box[2], 0.16), (box[1], box[3], 0.20)):
        slack = min(reach, 0.5 / zoom - (high - low) / 2 + 0.02 / zoom)
        centre.append((low + high) / 2 + float(r.uniform(-1, 1)) * slack)
    return Pose(zoom, (centre[0], centre[1]))


@dataclass(frozen=True)
class Exposure:
    """How the chest was exposed and displayed."""

    brightness: float
    contrast: float
    gamma: float
    noise: float
    blur: float  # standard deviation in plane units
    collimation: float  # brightness of the unexposed border and its scatter
    marker: bool
    marker_at: tuple[float, float]  # x from the image's middle, y from its top, in shorter image sides


def draw_exposure(seed: int) -> Exposure:
    """Draw the exposure from the seed."""
    r = stream(seed, "exposure")
    return Exposure(
        brightness=float(r.normal(0.0, 0.035)),
        contrast=float(np.clip(r.normal(1.0, 0.10), 0.75, 1.25)),
        gamma=float(np.exp(np.clip(r.normal(0.0, 0.12), -0.25, 0.25))),
        noise=float(r.uniform(0.003, 0.012)),
        blur=float(r.uniform(0.0010, 0.0024)),
        collimation=float(r.uniform(0.0, 0.06)),
        marker=bool(r.random() < 0.7),
        marker_at=(float(r.uniform(0.40, 0.45)), float(r.uniform(0.04, 0.09))),
    )
