"""The localisation heads of an LVLM, chosen once: on phantoms, on records of a dataset folder, or read from a file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from PIL import Image

from baselines.shared.localization_heads import calibrate, read_calibration
from medground_bench.core.errors import MethodError
from medground_bench.core.schema import question
from medground_bench.dataset.folder import open_folder
from medground_bench.sources.phantom import sample_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator

    from baselines.shared.localization_heads import Calibration
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["chosen_heads"]

_SEEDS = 8_500_000_000  # of the phantoms; those of sets begin at five billion, those of references at eight
_CHOSEN: WeakKeyDictionary[Any, dict[tuple[str, int], Calibration]] = WeakKeyDictionary()
"""LVLM -> what was asked for -> its heads: they are chosen once."""


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
    found = 0
    for seed in itertools.count(_SEEDS):
        phantom = sample_phantom(seed, size=224)
        for attribute in phantom.attributes[: count - found]:
            found += 1
            yield lvlm.prepare(Image.fromarray(phantom.image), question(attribute, "direct"), "Yes")
        if found == count:
            return


def _records(lvlm: Lvlm, folder: str, count: int) -> Iterator[Episode]:
    own = (record for record in open_folder(folder, "direct") if record.model == lvlm.key)
    for record in itertools.islice(own, count):
        yield lvlm.prepare(record.image, record.question, record.response or "Yes")
