"""The localiser behind the entry point ``multi_atlas``."""

import numpy as np

from medground_bench.core.anatomy import CONCEPTS
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.planted import CanvasAnatomy, load_localizer


def test_masks_lie_on_the_native_image_and_noise_is_not_a_chest(tmp_path):
    localizer = load_localizer("multi_atlas", cache=tmp_path)
    phantom = sample_phantom(77, size=(300, 360), findings=[])
    found = localizer(np.asarray(phantom.image))
    assert set(found.masks) == set(CONCEPTS)
    for concept in ("left lung", "right lung", "cardiac silhouette"):
        mask, true = found.masks[concept], phantom.masks[concept]
        assert mask.shape == (360, 300)
        assert (mask & true).sum() > 0.75 * (mask | true).sum()
    assert found.confidence > 0.75
    assert CanvasAnatomy(found).implausible() is None
    assert len(list(tmp_path.rglob("*.npz"))) == 1
    again = localizer(np.asarray(phantom.image))
    assert all((again.masks[c] == found.masks[c]).all() for c in CONCEPTS)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    assert localizer(noise).confidence < 0.4
    assert localizer(255 - np.asarray(phantom.image)).confidence == 0.0
