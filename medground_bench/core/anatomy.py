"""The anatomical vocabularies: the paper's 11 concepts and 4 composite groups (section 4.1), and finer zones."""

from __future__ import annotations

__all__ = ["COMPOSITES", "CONCEPTS", "PART_OF", "VOCABULARIES", "ZONES", "within"]

CONCEPTS: tuple[str, ...] = (
    "cardiac silhouette",
    "left lung",
    "right lung",
    "mediastinum",
    "upper mediastinum",
    "left clavicle",
    "right clavicle",
    "left hilar structures",
    "right hilar structures",
    "left costophrenic angle",
    "right costophrenic angle",
)
"""Left and right are the patient's; on a frontal radiograph the patient's left is on the viewer's right."""

COMPOSITES: dict[str, tuple[str, ...]] = {
    "both lungs": ("left lung", "right lung"),
    "both clavicles": ("left clavicle", "right clavicle"),
    "both hilar structures": ("left hilar structures", "right hilar structures"),
    "both costophrenic angles": ("left costophrenic angle", "right costophrenic angle"),
}

ZONES: tuple[str, ...] = (
    "left apical zone",
    "right apical zone",
    "left upper lung zone",
    "right upper lung zone",
    "left mid lung zone",
    "right mid lung zone",
    "left lower lung zone",
    "right lower lung zone",
    "left hilar structures",
    "right hilar structures",
    "left costophrenic angle",
    "right costophrenic angle",
    "left hemidiaphragm",
    "right hemidiaphragm",
    "left clavicle",
    "right clavicle",
    "cardiac silhouette",
    "right atrium",
    "cavoatrial junction",
    "svc",
    "aortic arch",
    "upper mediastinum",
    "trachea",
    "carina",
    "spine",
    "abdomen",
)
"""Finer regions, by the names of Chest ImaGenome (Wu et al. 2021)."""

VOCABULARIES: dict[str, tuple[str, ...]] = {"concepts": CONCEPTS, "zones": ZONES}

PART_OF: dict[str, str] = {
    **{
        f"{side} {zone}": f"{side} lung"
        for side in ("left", "right")
        for zone in ("apical zone", "upper lung zone", "mid lung zone", "lower lung zone", "hemidiaphragm")
    },
    "right atrium": "cardiac silhouette",
    "svc": "upper mediastinum",
    "aortic arch": "upper mediastinum",
    "trachea": "upper mediastinum",
    "carina": "upper mediastinum",
    "cavoatrial junction": "mediastinum",
    "spine": "mediastinum",
    "upper mediastinum": "mediastinum",
    "cardiac silhouette": "mediastinum",
}
"""What a region is part of, or lies in front of or behind, on a frontal radiograph."""


def within(name: str) -> tuple[str, ...]:
    """The region itself and all that it is part of, the smallest first.

    >>> within("aortic arch")
    ('aortic arch', 'upper mediastinum', 'mediastinum')
    """
    return (name, *within(PART_OF[name])) if name in PART_OF else (name,)
