"""The multi-atlas localiser as other packages call it: masks of the concepts on the native image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medfocus.cache import default_cache
from medfocus.localizer import AnatomyLocalizer
from medfocus.result import FRAME
from medground_bench.imaging.letterbox import Letterbox
from medground_bench.sources.planted.anatomy import Localization

if TYPE_CHECKING:
    from medfocus.atlas import ReferencePool

__all__ = ["ChestLocalizer"]


class ChestLocalizer:
    """Entry point ``multi_atlas`` of the group ``medground_bench.localizers``.

    Parameters
    ----------
    pool : ReferencePool, path or "phantom"
        The references.
    cache : bool or path
        Where localisations are kept: True for the user's cache folder, False for nowhere.
    """

    def __init__(self, pool: ReferencePool | str | Path = "phantom", cache: bool | str | Path = True) -> None:
        folder = default_cache() if cache is True else cache or None
        self._localizer = AnatomyLocalizer(pool, "multi_atlas", cache=folder)

    def __call__(self, image: NDArray[np.uint8]) -> Localization:
        """Locate the concepts; the confidence is the best reference's correlation, 0 where the grey scale is inverted.

        Raises
        ------
        ImageError
            If it is not a grey image.
        """
        transfer = self._localizer.localise(image)
        height, width = image.shape
        frame = Letterbox.fit(width, height, FRAME)
        # Nearest cell of the frame per native pixel.
        columns = ((np.arange(width) + 0.5) * frame.scale[0] + frame.content[0]).astype(int).clip(0, FRAME - 1)
        rows = ((np.arange(height) + 0.5) * frame.scale[1] + frame.content[1]).astype(int).clip(0, FRAME - 1)
        masks = {concept: found.mask[np.ix_(rows, columns)] for concept, found in transfer.concepts.items()}
        correlation = float(transfer.details["correlation"])
        return Localization(masks, 0.0 if transfer.details["inverted"] else max(0.0, correlation))
