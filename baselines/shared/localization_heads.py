"""Which heads of an LVLM localise: two criteria, and a calibration on records of other patients."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.head_criteria import elbow, prompt_attention, spatial_entropy
from medground_bench.core.errors import MethodError
from medground_bench.core.files import atomic_write

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["Calibration", "calibrate", "image_key", "read_calibration"]

_KIND = "medground-bench localization heads"


@dataclass(frozen=True)
class Calibration:
    """The localisation heads of one LVLM.

    Attributes
    ----------
    lvlm, revision : str
        Whose heads.
    heads : list of (int, int)
        (layer, head), most often selected first.
    counts : list of int
        How many records selected each.
    images : list of str
        :func:`image_key` of every image it was made from: a record of one of them is refused.
    """

    lvlm: str
    revision: str
    heads: list[tuple[int, int]]
    counts: list[int]
    images: list[str]

    def save(self, path: str | Path) -> Path:
        """Write it as JSON; returns the path."""
        with atomic_write(path) as file:
            json.dump({"kind": _KIND, **self.__dict__}, file, indent=1)
        return Path(path)


def calibrate(lvlm: Lvlm, episodes: Iterable[Episode], *, per_record: int = 10) -> Calibration:
    """Count, over records of patients that will not be evaluated, how often a head is among the most local ones.

    A head passes criterion 1 on a record if its attention to the image is at least the elbow of all heads'; of those
    the ``per_record`` with the least spatial entropy are selected (500 to 1,000 records in the paper): see
    :mod:`baselines.shared.head_criteria`.

    Raises
    ------
    MethodError
        If there are no episodes.

    Examples
    --------
    >>> heads = calibrate(lvlm, (lvlm.prepare(r.image, r.question, r.response) for r in others))  # doctest: +SKIP
    >>> heads.save("heads.json")  # doctest: +SKIP
    """
    counts: Counter[tuple[int, int]] = Counter()
    images = set()
    for episode in episodes:
        attention = prompt_attention(lvlm, episode)  # (L, H, rows, cols)
        mass = attention.sum((2, 3))
        passing = np.argwhere(mass >= elbow(mass.ravel())).tolist()
        ranked = sorted((spatial_entropy(attention[layer, head]), layer, head) for layer, head in passing)
        counts.update((layer, head) for _, layer, head in ranked[:per_record])
        images.add(image_key(episode))
    if not images:
        raise MethodError(
            f"localization heads of {lvlm.key} cannot be chosen without records of it", expected="some hundred episodes"
        )
    ordered = sorted(counts, key=lambda h: (-counts[h], h))
    return Calibration(lvlm.key, str(lvlm.revision), ordered, [counts[h] for h in ordered], sorted(images))


def read_calibration(path: str) -> Calibration:
    """Read what :meth:`Calibration.save` wrote.

    Raises
    ------
    MethodError
        If the file cannot be read or is not one.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data.pop("kind") != _KIND:
            raise ValueError("of another kind")
        found = Calibration(**data)
        return Calibration(**{**data, "heads": [(int(a), int(b)) for a, b in found.heads]})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MethodError(
            f"not a calibration of localization heads ({error})", where=path, expected="a file of Calibration.save"
        ) from error


def image_key(episode: Episode) -> str:
    """SHA-256 of the native image's pixels."""
    return hashlib.sha256(repr(episode.image.size).encode() + episode.image.convert("L").tobytes()).hexdigest()
