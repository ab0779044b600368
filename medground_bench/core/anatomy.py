"""The anatomical vocabulary: 11 concepts and 4 composite groups (paper, section 4.1)."""

from __future__ import annotations

__all__ = ["COMPOSITES", "CONCEPTS"]

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
