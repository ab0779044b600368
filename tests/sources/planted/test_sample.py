"""Planting on a canvas: what changes, what does not, and what comes back."""

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import SourceError
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.planted import DISTRACTORS, FINDINGS, CanvasAnatomy, Localization, plant
from medground_bench.sources.planted.canvas import attenuation, display


@pytest.fixture(scope="module", params=[(512, 512), (300, 260)], ids=["512", "300x260"])
def chest(request):
    """A normal phantom as canvas, with its exact anatomy."""
    phantom = sample_phantom(11, size=request.param, findings=[])
    return np.asarray(phantom.image), CanvasAnatomy(Localization(phantom.masks, 1.0))


def test_every_grey_level_survives_the_way_to_attenuation_and_back():
    levels = np.arange(256, dtype=np.uint8)
    assert (display(attenuation(levels)) == levels).all()


@pytest.mark.parametrize("attribute", FINDINGS)
def test_a_finding_changes_its_mask_only(chest, attribute):
    canvas, anatomy = chest
    before = canvas.copy()
    planted = plant(canvas, anatomy, 3, [attribute])
    (finding,) = planted.findings
    change = np.abs(planted.image.astype(int) - canvas)
    assert (canvas == before).all()
    assert not change[~finding.mask].any()
    assert change[finding.mask].max() >= 8
    assert np.mean(change[finding.mask] >= 2) > 0.3
    assert (planted.without(attribute).image == canvas).all()
    covered = np.zeros_like(finding.mask)
    for x1, y1, x2, y2 in finding.boxes:
        covered[int(y1) : int(y2), int(x1) : int(x2)] = True
        assert finding.mask[int(y1), int(x1) : int(x2)].any()
        assert finding.mask[int(y1) : int(y2), int(x2) - 1].any()
    assert not (finding.mask & ~covered).any()


def test_taking_one_finding_away_leaves_the_others_as_they_are(chest):
    canvas, anatomy = chest
    planted = plant(canvas, anatomy, 5, ["pleural effusion", "nodule", "pneumothorax"], distractors=["marker", "tube"])
    for gone in planted.findings:
        rest = planted.without(gone.attribute)
        assert rest.attributes == tuple(a for a in planted.attributes if a != gone.attribute)
        assert (rest.image == planted.image)[~gone.mask].all()
        others = np.any([f.mask for f in rest.findings] + [d.mask for d in rest.distractors], axis=0)
        assert (rest.image == canvas)[gone.mask & ~others].all()
    bare = planted.without()
    things = np.any([d.mask for d in planted.distractors], axis=0)
    assert (bare.image == canvas)[~things].all()
    assert (bare.image != canvas)[things].mean() > 0.9


def test_canvas_and_seed_decide(chest):
    canvas, anatomy = chest
    one, same, other = plant(canvas, anatomy, 8), plant(canvas, anatomy, 8), plant(canvas, anatomy, 9)
    assert (one.image == same.image).all()
    assert one.findings
    assert (one.image != other.image).any()


def test_one_anatomy_serves_every_resolution():
    phantom = sample_phantom(4, size=512, findings=[])
    anatomy = CanvasAnatomy(Localization(phantom.masks, 1.0))
    canvas = np.asarray(phantom.image)
    small = np.asarray(Image.fromarray(canvas).resize((224, 224), Image.Resampling.BOX))
    planted = plant(small, anatomy, 2, ["pleural effusion"])
    lungs = np.asarray(Image.fromarray(phantom.masks["left lung"] | phantom.masks["right lung"]).resize((224, 224)))
    assert (planted.findings[0].mask & lungs).sum() > 0.5 * planted.findings[0].mask.sum()


@pytest.mark.parametrize("kind", DISTRACTORS)
def test_a_distractor_is_seen_and_is_no_finding(chest, kind):
    canvas, anatomy = chest
    planted = plant(canvas, anatomy, 1, [], distractors=[kind])
    assert planted.findings == ()
    (thing,) = planted.distractors
    assert thing.kind == kind
    change = np.abs(planted.image.astype(int) - canvas)
    assert not change[~thing.mask].any()
    assert change.max() >= 8


def test_sides_and_zones_are_where_the_mask_is():
    wrong = []
    for seed in range(12):
        phantom = sample_phantom(seed, size=256, findings=[])
        anatomy = CanvasAnatomy(Localization(phantom.masks, 1.0))
        for finding in plant(np.asarray(phantom.image), anatomy, seed, ["nodule", "pneumothorax"]).findings:
            centre = np.nonzero(finding.mask)[1].mean() * anatomy.shape[1] / 256
            if (centre < anatomy.midline) != (finding.side == "right"):
                wrong.append((seed, finding))
            assert finding.side in finding.location
    assert not wrong


def test_bad_input_is_named(chest):
    canvas, anatomy = chest
    with pytest.raises(SourceError, match="unknown finding 'measles'"):
        plant(canvas, anatomy, 0, ["measles"])
    with pytest.raises(SourceError, match="unknown distractor 'necklace'"):
        plant(canvas, anatomy, 0, [], distractors=["necklace"])
    with pytest.raises(SourceError, match="negative"):
        plant(canvas, anatomy, -1)
    with pytest.raises(SourceError, match="float64"):
        plant(canvas.astype(float), anatomy, 0)
    with pytest.raises(SourceError, match="times as wide"):
        plant(canvas[: canvas.shape[0] // 2], anatomy, 0)
    with pytest.raises(SourceError, match="'nodule' is planted"):
        plant(canvas, anatomy, 0, []).without("nodule")


def test_a_chest_without_room_is_refused():
    phantom = sample_phantom(11, size=256, findings=[])
    shrunk = {k: np.asarray(Image.fromarray(m).resize((32, 32))) for k, m in phantom.masks.items()}
    masks = {k: np.pad(m, ((0, 224), (0, 224))) for k, m in shrunk.items()}
    anatomy = CanvasAnatomy(Localization(masks, 1.0))
    assert "covers" in (anatomy.implausible() or "")
    with pytest.raises(SourceError, match="outside the lungs"):
        plant(np.asarray(phantom.image), anatomy, 0, ["lung mass"])
    with pytest.raises(SourceError, match="no left lung was found"):
        CanvasAnatomy(Localization({k: m for k, m in phantom.masks.items() if k != "left lung"}, 1.0))
