"""Small pools and images shared by the MedFocus tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medfocus.atlas import Reference, ReferencePool
from medground_bench.sources.phantom import sample_phantom


@pytest.fixture(scope="session")
def phantom_pool() -> ReferencePool:
    """The shipped pool."""
    return ReferencePool.phantom()


@pytest.fixture(scope="session")
def small_pool(phantom_pool: ReferencePool) -> ReferencePool:
    """Four of its references."""
    return ReferencePool(phantom_pool[:4], "small")


@pytest.fixture(scope="session")
def box_pool(small_pool: ReferencePool) -> ReferencePool:
    """The same with boxes instead of masks."""
    references = [Reference(r.name, r.image, {}, {c: r.box(c) for c in r.concepts}) for r in small_pool]
    return ReferencePool(references, "boxes")


@pytest.fixture(scope="session")
def chest() -> np.ndarray:
    """A phantom that is in no pool."""
    return np.asarray(sample_phantom(268, size=256, findings=[]).image)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("MEDGROUND_CACHE", str(tmp_path / "user-cache"))
