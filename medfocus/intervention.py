"""Removing a concept from the image, and what that does to the response (paper, section 4.2; spec section 8).

For every concept (and composite group) one variant of the episode's frame is made; all are scored in one batch against
the stored response. With the tokens' log-probabilities ``l_t`` of the original and ``l_t(c)`` of the variant::

    Delta_c = sum_t max(0, l_t - l_t(c)),    r_c = exp(-Delta_c)

The concept with the largest ``Delta_c`` is the attribution, unless ``min_c r_c >= tau``: then the answer rests on none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from medground_bench.attribution.fills import compose, fill_frame
from medground_bench.core.anatomy import COMPOSITES
from medground_bench.core.errors import MethodError
from medground_bench.core.schema import Box
from medground_bench.imaging.letterbox import Letterbox

if TYPE_CHECKING:
    from medfocus.result import Found
    from medground_bench.causal.editors import Editor
    from medground_bench.lvlm import Episode

__all__ = ["INTERVENTIONS", "Effects", "Intervention", "effects", "groups", "on_frame", "variants"]

Intervention = Literal["box", "mask", "edit"]
INTERVENTIONS: tuple[str, ...] = ("box", "mask", "edit")


@dataclass(frozen=True, eq=False)
class Effects:
    """What removing each concept does to the response.

    Attributes
    ----------
    deltas : dict of str to float
        Delta of every concept and composite: summed drops of log-probability, nats.
    ratios : dict of str to float
        ``exp(-delta)``: how much of the response's probability is left, counting drops only.
    drops : dict of str to ndarray, (T,)
        Drop of every token, at least 0.
    best : str
        The concept with the largest delta (the first of equals).
    fallback : bool
        No ratio is below tau.
    """

    deltas: dict[str, float]
    ratios: dict[str, float]
    drops: dict[str, np.ndarray]
    best: str
    fallback: bool


def effects(original: np.ndarray, masked: Mapping[str, np.ndarray], tau: float = 0.75) -> Effects:
    """Deltas, ratios and the fallback rule from the log-probabilities of the response's tokens.

    Parameters
    ----------
    original : ndarray, (T,)
        Of the original image.
    masked : mapping of str to (T,) ndarray
        Of the image without each concept.
    tau : float
        Ratio at and above which a concept does not matter.

    Raises
    ------
    MethodError
        If there is no concept, the lengths differ or a value is not finite.
    """
    base = np.asarray(original, np.float64)
    if not masked:
        raise MethodError("there is no concept to intervene on", expected="at least one located concept")
    drops = {}
    for name, values in masked.items():
        after = np.asarray(values, np.float64)
        if after.shape != base.shape or base.ndim != 1 or not (np.isfinite(after).all() and np.isfinite(base).all()):
            raise MethodError(
                f"log-probabilities of shapes {base.shape} and {after.shape} cannot be compared",
                where=name,
                expected="finite values, one per response token",
            )
        drops[name] = np.maximum(base - after, 0.0)
    deltas = {name: float(drop.sum()) for name, drop in drops.items()}
    ratios = {name: float(np.exp(-delta)) for name, delta in deltas.items()}
    return Effects(deltas, ratios, drops, max(deltas, key=deltas.__getitem__), min(ratios.values()) >= tau)


def groups(concepts: Sequence[str], composites: bool = True) -> dict[str, tuple[str, ...]]:
    """Name -> concepts removed together: every concept by itself, then the composites whose members are all there."""
    single: dict[str, tuple[str, ...]] = {concept: (concept,) for concept in concepts}
    if not composites:
        return single
    return single | {name: parts for name, parts in COMPOSITES.items() if set(parts) <= set(concepts)}


def variants(
    episode: Episode,
    found: Mapping[str, Found],
    members: Mapping[str, Sequence[str]],
    intervention: Intervention = "box",
    fill: str = "black",
    editor: Editor | None = None,
    prompt: str = "No abnormality",
    seed: int = 0,
) -> list[np.ndarray]:
    """The episode's frame without each group of concepts.

    Parameters
    ----------
    episode : Episode
        Its frame is varied; nothing is changed in place.
    found : mapping of str to Found
        Located concepts.
    members : mapping of str to sequence of str
        From :func:`groups`.
    intervention : {"box", "mask", "edit"}
        Fill the concepts' boxes; fill their pixels only (the box where no pixels are known); let an editor replace what
        is inside the boxes.
    fill : {"black", "mean", "blur"}
        What removed pixels become (:mod:`medground_bench.attribution.fills`).
    editor : object with ``edit(image, mask, prompt, seed)``
        For ``"edit"``: works on the native image, as the causal filter's editors do.
    prompt, seed
        For the editor.

    Returns
    -------
    list of ndarray, (H, W) or (H, W, 3) uint8
        In the order of ``members``.

    Raises
    ------
    MethodError
        If a setting is unknown, or ``"edit"`` has no editor.
    """
    _check(intervention, editor)
    if intervention == "edit":
        assert editor is not None  # checked above
        return [_edited(episode, [found[c] for c in parts], editor, prompt, seed) for parts in members.values()]
    frame = episode.frame_array
    masks = {c: _removed(one, episode.letterbox, frame.shape[:2], intervention) for c, one in found.items()}
    if not members:
        return []
    removed = [np.logical_or.reduce([masks[concept] for concept in parts]) for parts in members.values()]
    return list(compose(frame, np.stack(removed), fill_frame(fill, episode)))


def _check(intervention: str, editor: object) -> None:
    if intervention not in INTERVENTIONS:
        raise MethodError(f"unknown intervention {intervention!r}", expected=" or ".join(INTERVENTIONS))
    if intervention == "edit" and editor is None:
        raise MethodError("the intervention 'edit' needs an editor", remedy="give one, e.g. editor='radedit'")


def _removed(one: Found, letterbox: Letterbox, shape: tuple[int, ...], intervention: str) -> np.ndarray:
    """Frame pixels that are taken out for a concept."""
    if intervention == "mask":
        mask = _on_frame(one.mask, letterbox)
        if mask.any():
            return mask
    out = np.zeros(shape, bool)
    x1, y1, x2, y2 = letterbox.to_frame([one.box])[0]
    rows, columns = _pixels(y1, y2, shape[0]), _pixels(x1, x2, shape[1])
    out[rows, columns] = True
    return out


def on_frame(found: Found, letterbox: Letterbox, shape: tuple[int, ...]) -> np.ndarray:
    """A concept's pixels on a frame of a shape, (H, W) bool; those of its box where no pixels are known."""
    return _removed(found, letterbox, shape, "mask")


def _pixels(start: float, end: float, size: int) -> slice:
    """Pixels whose centres lie inside; a box thinner than a pixel takes the one it lies in."""
    first, last = int(np.ceil(start - 0.5)), int(np.ceil(end - 0.5))
    if last <= first:
        first = int(np.floor((start + end) / 2))
        last = first + 1
    first = min(max(first, 0), size - 1)
    return slice(first, min(max(last, first + 1), size))


def _on_frame(mask: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """A mask on its own square frame -> the episode's frame, which may have another side or be the native image."""
    height, width = letterbox.frame_height, letterbox.frame_width
    own = Letterbox.fit(letterbox.width, letterbox.height, mask.shape[0])
    out = np.zeros((height, width), bool)
    (sx, sy), (ox, oy) = letterbox.scale, letterbox.content[:2]
    x = ((np.arange(width) + 0.5 - ox) / sx) * own.scale[0] + own.content[0]
    y = ((np.arange(height) + 0.5 - oy) / sy) * own.scale[1] + own.content[1]
    rows, columns = (y >= 0) & (y < mask.shape[0]), (x >= 0) & (x < mask.shape[1])
    out[np.ix_(rows, columns)] = mask[np.ix_(y[rows].astype(int), x[columns].astype(int))]
    return out


def _edited(episode: Episode, parts: Sequence[Found], editor: Editor, prompt: str, seed: int) -> np.ndarray:
    width, height = episode.image.size
    mask = np.zeros((height, width), bool)
    for one in parts:
        x1, y1, x2, y2 = one.box
        mask[_pixels(y1, y2, height), _pixels(x1, x2, width)] = True
    edited = editor.edit(episode.image, mask, prompt, seed)
    if edited.size != episode.image.size:
        raise MethodError(
            f"the editor gave back {edited.size[0]}x{edited.size[1]}", expected=f"{width}x{height}, as it was given"
        )
    return np.asarray(episode.letterbox.apply(edited).convert(episode.frame.mode))


def boxes_of(found: Mapping[str, Found], parts: Sequence[str]) -> list[Box]:
    """Boxes of a group's members."""
    return [found[concept].box for concept in parts]
