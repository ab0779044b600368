"""Which heads of an LVLM localise: two criteria, and a calibration on records of other patients."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from medground_bench.core.errors import MethodError
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import question

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = [
    "Calibration",
    "calibrate",
    "chosen_heads",
    "elbow",
    "image_key",
    "prompt_attention",
    "read_calibration",
    "spatial_entropy",
]

_KIND = "medground-bench localization heads"
_SEEDS = 8_500_000_000  # of the phantoms; those of sets begin at five billion, those of references at eight
_CHOSEN: WeakKeyDictionary[Any, dict[tuple[str, int], Calibration]] = WeakKeyDictionary()
"""LVLM -> what was asked for -> its heads: they are chosen once."""


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

    A head passes criterion 1 on a record if its attention to the image is at least the :func:`elbow` of all heads'; of
    those the ``per_record`` with the least :func:`spatial_entropy` are selected (500 to 1,000 records in the paper).

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


def chosen_heads(lvlm: Lvlm, source: str, records: int) -> Calibration:
    """The heads of an LVLM by ``phantom``, a dataset folder or a file: see ``localization_heads``'s parameters.

    Raises
    ------
    MethodError
        If the file is not one, or of another LVLM, or if the folder has no record of this one.
    """
    known = _CHOSEN.setdefault(lvlm, {})
    if (source, records) not in known:
        if source == "phantom":
            found = calibrate(lvlm, _phantoms(lvlm, records))
        elif Path(source).is_dir():
            found = calibrate(lvlm, _records(lvlm, source, records))
        else:
            found = read_calibration(source)
        if (found.lvlm, found.revision) != (lvlm.key, str(lvlm.revision)):
            raise MethodError(
                f"the heads are those of {found.lvlm} ({found.revision}), the LVLM is {lvlm.key} ({lvlm.revision})",
                where=source,
            )
        known[source, records] = found
    return known[source, records]


def _phantoms(lvlm: Lvlm, count: int) -> Iterator[Episode]:
    """Each time a question about a finding that is there; heads are judged where the answer is still to come."""
    from PIL import Image

    from medground_bench.sources.phantom import sample_phantom

    found = 0
    for seed in itertools.count(_SEEDS):
        phantom = sample_phantom(seed, size=224)
        for attribute in phantom.attributes[: count - found]:
            found += 1
            yield lvlm.prepare(Image.fromarray(phantom.image), question(attribute, "direct"), "Yes")
        if found == count:
            return


def _records(lvlm: Lvlm, folder: str, count: int) -> Iterator[Episode]:
    from medground_bench.dataset.folder import open_folder

    own = (record for record in open_folder(folder, "direct") if record.model == lvlm.key)
    for record in itertools.islice(own, count):
        yield lvlm.prepare(record.image, record.question, record.response or "Yes")


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


def prompt_attention(lvlm: Lvlm, episode: Episode) -> np.ndarray:
    """Attention of every head from the last position of the prompt to the image tokens, (L, H, rows, cols) float64."""
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    image = list(episode.image_positions)
    layers = [trace.weights(n, episode.rows[:1])[:, 0, image].double().cpu().numpy() for n in trace.layers]
    grid = episode.grid
    return np.stack([[grid.as_map(head) for head in layer] for layer in layers])


def elbow(values: np.ndarray) -> float:
    """The value at which the sorted values bend: the point farthest below the chord from first to last."""
    ordered = np.sort(np.asarray(values, float))
    if len(ordered) < 3 or ordered[-1] == ordered[0]:
        return float(ordered[0])
    x = np.linspace(0.0, 1.0, len(ordered))
    y = (ordered - ordered[0]) / (ordered[-1] - ordered[0])
    return float(ordered[np.argmax(x - y)])


def spatial_entropy(attention: np.ndarray) -> float:
    """``-sum_c p_c ln p_c`` over the 8-connected components c of what exceeds the map's mean, p_c their share of it.

    0 for one component; infinite for a constant map, which has none.
    """
    from scipy import ndimage

    above = np.maximum(attention - attention.mean(), 0)
    labels, count = ndimage.label(above > 0, structure=np.ones((3, 3)))
    if not count:
        return float("inf")
    share = ndimage.sum_labels(above, labels, np.arange(1, count + 1)) / above.sum()
    return float(-(share * np.log(share)).sum())


def image_key(episode: Episode) -> str:
    """SHA-256 of the native image's pixels."""
    return hashlib.sha256(repr(episode.image.size).encode() + episode.image.convert("L").tobytes()).hexdigest()
