"""Phantoms: seeds, exact counterfactuals, masks and boxes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label, maximum_filter

from medground_bench.core.anatomy import COMPOSITES, CONCEPTS
from medground_bench.core.errors import MedGroundError
from medground_bench.imaging.boxes import as_boxes, union_area
from medground_bench.scoring.chance import chance_scores
from medground_bench.sources.distributions import distribution
from medground_bench.sources.phantom import FINDINGS, Phantom, mask_box, sample_phantom

SEEDS = range(6)


@pytest.fixture(scope="module")
def full() -> dict[int, Phantom]:
    """Phantoms that carry every finding at once."""
    return {seed: sample_phantom(seed, size=224, findings=FINDINGS) for seed in SEEDS}


def centre(mask: np.ndarray) -> tuple[float, float]:
    rows, cols = np.nonzero(mask)
    return float(cols.mean()), float(rows.mean())


def test_same_seed_same_image() -> None:
    first, again, other = (sample_phantom(s, size=160) for s in (11, 11, 12))
    assert np.array_equal(first.image, again.image)
    assert first.attributes == again.attributes
    assert not np.array_equal(first.image, other.image)


def test_the_image_does_not_depend_on_the_order_of_findings() -> None:
    a = sample_phantom(4, size=160, findings=["nodule", "cardiomegaly"])
    b = sample_phantom(4, size=160, findings=["cardiomegaly", "nodule"])
    assert np.array_equal(a.image, b.image)
    assert [f.attribute for f in a.findings] == ["cardiomegaly", "nodule"]


def test_the_image_is_what_the_without_chain_ends_in() -> None:
    phantom = sample_phantom(21, size=160, findings=["nodule", "pleural effusion"])
    normal = sample_phantom(21, size=160, findings=[])
    assert np.array_equal(phantom.without().image, normal.image)
    assert np.array_equal(phantom.without("nodule").without("pleural effusion").image, normal.image)
    alone = sample_phantom(21, size=160, findings=["pleural effusion"])
    assert np.array_equal(phantom.without("nodule").image, alone.image)


@pytest.mark.parametrize("attribute", FINDINGS)
def test_counterfactual_is_exact(full: dict[int, Phantom], attribute: str) -> None:
    """Away from a finding's mask nothing changes; inside it the image does; the other findings stay as they are."""
    for phantom in full.values():
        finding = next(f for f in phantom.findings if f.attribute == attribute)
        without = phantom.without(attribute)
        changed = phantom.image != without.image
        # Soft edge of 0.02 and three standard deviations of blur of at most 0.0024 frame units, enlarged 1.38 times.
        near = maximum_filter(finding.mask, 2 * 9 + 1)
        assert not (changed & ~near).any()
        # Where something denser lies over it, a finding does not show; most of it always does.
        assert changed[finding.mask].mean() > 0.25
        others = {f.attribute: f for f in phantom.findings if f.attribute != attribute}
        assert {f.attribute for f in without.findings} == set(others)
        for f in without.findings:
            assert np.array_equal(f.mask, others[f.attribute].mask)
            assert f.boxes == others[f.attribute].boxes


@pytest.mark.parametrize("attribute", FINDINGS)
def test_a_finding_can_be_seen(attribute: str) -> None:
    """Alone on a normal chest, a finding changes its mask by much more than the noise does."""
    for seed in SEEDS:
        phantom = sample_phantom(seed, size=224, findings=[attribute])
        (finding,) = phantom.findings
        change = phantom.image.astype(float) - phantom.without().image
        inside = np.abs(change[finding.mask])
        assert inside.mean() > 10
        assert np.quantile(inside, 0.9) > 25
        if attribute not in ("pneumothorax", "clavicle fracture"):
            assert change[finding.mask].mean() > 10  # dense, hence brighter
    if attribute == "pneumothorax":
        assert change[finding.mask].mean() < -5


def test_boxes_are_tight_and_one_per_lesion(full: dict[int, Phantom]) -> None:
    for phantom in full.values():
        for finding in phantom.findings:
            cover = np.zeros_like(finding.mask)
            for x1, y1, x2, y2 in finding.boxes:
                assert 0 <= x1 < x2 <= 224
                assert 0 <= y1 < y2 <= 224
                part = finding.mask[int(y1) : int(y2), int(x1) : int(x2)]
                assert part.any(axis=1)[[0, -1]].all()
                assert part.any(axis=0)[[0, -1]].all()
                cover[int(y1) : int(y2), int(x1) : int(x2)] = True
            assert not (finding.mask & ~cover).any()
            assert len(finding.boxes) == (2 if finding.side == "both" else 1)


def test_sides_zones_and_concepts(full: dict[int, Phantom]) -> None:
    """The patient's left is on the viewer's right; a finding lies on the side and in the concept it names."""
    for phantom in full.values():
        midline = (centre(phantom.masks["left lung"])[0] + centre(phantom.masks["right lung"])[0]) / 2
        for f in phantom.findings:
            if f.side in ("left", "right"):
                assert (centre(f.mask)[0] > midline) == (f.side == "left")
                assert f.side in f.location
            elif f.side == "both":
                assert f.concept in COMPOSITES
                assert "both" in f.location
            members = COMPOSITES.get(f.concept, (f.concept,))
            assert set(members) <= set(CONCEPTS)
            region = np.logical_or.reduce([phantom.masks[m] for m in members])
            x1, y1, x2, y2 = mask_box(region) or (0, 0, 0, 0)
            cx, cy = centre(f.mask)
            margin = 0.06 * 224
            assert x1 - margin < cx < x2 + margin
            assert y1 - margin < cy < y2 + margin


def test_both_sides_and_both_kinds_of_lesion_size_occur() -> None:
    sides, widths = {}, {"nodule": [], "lung mass": []}
    for seed in range(40):
        phantom = sample_phantom(seed, size=112, findings=FINDINGS)
        for f in phantom.findings:
            sides.setdefault(f.attribute, set()).add(f.side)
            if f.attribute in widths:
                chest = mask_box(phantom.masks["left lung"] | phantom.masks["right lung"])
                assert chest
                widths[f.attribute].append(2 * np.sqrt(f.mask.sum() / np.pi) / (chest[2] - chest[0]))
    for attribute in FINDINGS:
        expected = {None} if attribute in ("cardiomegaly", "aortic enlargement") else {"left", "right"}
        assert expected <= sides[attribute]
    assert "both" in sides["pleural effusion"]
    assert "both" in sides["hilar enlargement"]
    assert min(widths["nodule"]) > 0.06
    # The textbook's 3 cm (of a chest of 28) lie between them, with a gap: no nodule is nearly as large as a mass.
    assert max(widths["nodule"]) < 0.12
    assert min(widths["lung mass"]) > 1.15 * max(widths["nodule"])


def test_anatomy_is_in_its_place() -> None:
    for seed in range(12):
        masks = sample_phantom(seed, size=224).masks
        assert tuple(masks) == CONCEPTS
        for name, mask in masks.items():
            assert mask.shape == (224, 224)
            assert mask.dtype == bool
            assert mask.sum() > 60, name
        x = {name: centre(mask)[0] for name, mask in masks.items()}
        y = {name: centre(mask)[1] for name, mask in masks.items()}
        for part in ("lung", "clavicle", "hilar structures", "costophrenic angle"):
            assert x[f"right {part}"] < x["mediastinum"] < x[f"left {part}"]
        for side in ("left", "right"):
            assert y[f"{side} clavicle"] < y[f"{side} hilar structures"] < y[f"{side} costophrenic angle"]
            assert label(masks[f"{side} lung"])[1] == 1
            # The angle lies at the lung's lower outer corner.
            assert not (masks[f"{side} costophrenic angle"] & ~masks[f"{side} lung"]).any()
        assert y["upper mediastinum"] < y["cardiac silhouette"]
        assert not (masks["cardiac silhouette"] & ~masks["mediastinum"]).any()
        assert not (masks["left lung"] & masks["right lung"]).any()
        # The apex of the heart points to the patient's left.
        assert x["cardiac silhouette"] > x["upper mediastinum"]


def test_cardiomegaly_widens_the_silhouette() -> None:
    for seed in SEEDS:
        phantom = sample_phantom(seed, size=224, findings=["cardiomegaly"])
        (finding,) = phantom.findings
        normal = mask_box(phantom.without().masks["cardiac silhouette"])
        large = mask_box(phantom.masks["cardiac silhouette"])
        assert finding.boxes == (large,)
        lungs = mask_box(phantom.masks["left lung"] | phantom.masks["right lung"])
        assert normal
        assert large
        assert lungs
        ratios = [(b[2] - b[0]) / (lungs[2] - lungs[0]) for b in (normal, large)]
        assert ratios[0] < 0.5 < ratios[1]  # the cardiothoracic ratio's textbook threshold


def test_anatomy_does_not_depend_on_findings_or_size() -> None:
    normal = sample_phantom(5, size=256, findings=[])
    ill = sample_phantom(5, size=256, findings=["lung mass", "pneumothorax"])
    for name in CONCEPTS:
        assert np.array_equal(normal.masks[name], ill.masks[name])
    small, large = (sample_phantom(5, size=s, findings=["lung mass"]) for s in (224, 896))
    for name in CONCEPTS:
        a, b = mask_box(small.masks[name]), mask_box(large.masks[name])
        assert np.allclose(np.array(a) * 4, b, atol=8)
    assert np.allclose(np.array(small.findings[0].boxes) * 4, large.findings[0].boxes, atol=8)


@pytest.mark.parametrize("size", [112, (112, 200), (300, 180), (2048, 112)])
def test_sizes(size: int | tuple[int, int]) -> None:
    phantom = sample_phantom(3, size=size, findings=FINDINGS)
    width, height = (size, size) if isinstance(size, int) else size
    assert phantom.image.shape == (height, width)
    assert phantom.image.dtype == np.uint8
    assert phantom.image.std() > 20
    assert all(m.shape == (height, width) and m.any() for m in phantom.masks.values())
    assert len(phantom.findings) == len(FINDINGS)
    assert all(f.boxes for f in phantom.findings)


def test_largest_size() -> None:
    phantom = sample_phantom(3, size=2048, findings=["nodule"])
    assert phantom.image.shape == (2048, 2048)
    assert phantom.findings[0].mask.sum() > 10_000


def test_random_findings_have_a_sensible_prevalence() -> None:
    attributes = [sample_phantom(seed, size=112).attributes for seed in range(400)]
    for finding in FINDINGS:
        share = np.mean([finding in a for a in attributes])
        assert 0.17 < share < 0.35
    assert any(len(a) == 0 for a in attributes)
    assert any(len(a) >= 4 for a in attributes)


def test_images_vary_like_radiographs() -> None:
    """Chest darker than abdomen, air beside the body darkest; exposure and anatomy differ between seeds."""
    means, widths = [], []
    for seed in range(12):
        phantom = sample_phantom(seed, size=160, findings=[])
        image, masks = phantom.image.astype(float), phantom.masks
        lungs = (masks["left lung"] | masks["right lung"]) & ~masks["mediastinum"]
        assert image[lungs].mean() < image[masks["cardiac silhouette"]].mean() - 30
        assert image[lungs].mean() < image[150:, 60:100].mean() - 30
        means.append(image.mean())
        box = mask_box(masks["left lung"] | masks["right lung"])
        assert box
        widths.append(box[2] - box[0])
    assert np.std(means) > 3
    assert np.std(widths) > 2


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(MedGroundError, match="111 x 111"):
        sample_phantom(0, size=111)
    with pytest.raises(MedGroundError, match="2049"):
        sample_phantom(0, size=(2049, 300))
    with pytest.raises(MedGroundError, match="negative"):
        sample_phantom(-1)
    with pytest.raises(MedGroundError, match="'cold'"):
        sample_phantom(0, findings=["cold"])
    with pytest.raises(MedGroundError, match="has no 'nodule'"):
        sample_phantom(0, size=112, findings=[]).without("nodule")


def test_the_image_is_read_only() -> None:
    image = sample_phantom(0, size=112).image
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 1


def test_evidence_is_spread_like_real_evidence() -> None:
    """A guess that never looks at the image does on phantoms as it does on radiographs (IoU 0.10 on NIH)."""
    evidence, attributes, clusters = [], [], []
    seed = 0
    while len(evidence) < 300:
        for finding in sample_phantom(seed, size=112).findings:
            evidence.append(list(finding.boxes))
            attributes.append(finding.attribute)
            clusters.append(seed)
        seed += 1
    prior = chance_scores(evidence, np.full((len(evidence), 2), 112), attributes, clusters)["centre_prior"]
    assert float(np.mean(prior.iou)) <= 0.13
    shares = np.array([union_area(as_boxes(boxes)) / 112**2 for boxes in evidence])
    real = distribution("*").evidence
    assert real[0] / 2 < np.quantile(shares, 0.1) < 2 * real[0]
    assert real[4] / 2 < np.median(shares) < 2 * real[4]
    assert real[8] / 2 < np.quantile(shares, 0.9) < 2 * real[8]


def test_the_pose_varies_and_the_lungs_stay_in_the_image() -> None:
    boxes = []
    for seed in range(60):
        phantom = sample_phantom(seed, size=112, findings=[])
        box = mask_box(phantom.masks["left lung"] | phantom.masks["right lung"])
        assert box
        boxes.append(np.array(box) / 112)
    x1, y1, x2, y2 = np.array(boxes).T
    assert np.std((x1 + x2) / 2) > 0.03
    assert np.std((y1 + y2) / 2) > 0.03
    assert np.ptp(x2 - x1) > 0.2
    assert np.ptp((y2 - y1) / (x2 - x1)) > 0.15  # inspiration
