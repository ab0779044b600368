"""Locating concepts: input kinds, both presets, partial pools, odd images, accuracy on phantoms and real lungs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.atlas import Reference
from medfocus.multi_atlas import MultiAtlasTransfer
from medfocus.paper import PublishedTransfer, _frame
from medfocus.regions import mass_set, tight_box
from medfocus.uot import image_weights, solve_grid_uot
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import AtlasError, ImageError, MethodError
from medground_bench.core.schema import Box
from medground_bench.imaging import Letterbox
from medground_bench.sources.phantom import mask_box, sample_phantom


def iou(one: Box | list[float], two: Box | list[float]) -> float:
    width, height = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return shared / (sum(areas) - shared)


@pytest.fixture(scope="module", params=["paper", "multi_atlas"])
def preset(request: pytest.FixtureRequest) -> str:
    return request.param


class TestBothPresets:
    def test_boxes_are_native_and_ordered(self, small_pool: ReferencePool, preset: str):
        image = Image.fromarray(sample_phantom(5, size=(300, 380)).image)
        boxes = AnatomyLocalizer(small_pool, preset).locate(image)
        assert tuple(boxes) == CONCEPTS
        for x1, y1, x2, y2 in boxes.values():
            assert 0 <= x1 < x2 <= 300
            assert 0 <= y1 < y2 <= 380
        left, right = boxes["left lung"], boxes["right lung"]
        assert left[0] + left[2] > right[0] + right[2]  # the patient's left is on the viewer's right

    def test_image_kinds_agree(self, small_pool: ReferencePool, preset: str, chest: np.ndarray, tmp_path: Path):
        localizer = AnatomyLocalizer(small_pool, preset)
        Image.fromarray(chest).save(tmp_path / "chest.png")
        boxes = localizer.locate(chest)
        assert all(isinstance(box, list) and len(box) == 4 for box in boxes.values())
        for same in (Image.fromarray(chest), Image.fromarray(chest).convert("RGB"), tmp_path / "chest.png"):
            assert localizer.locate(same) == boxes
        for close in (chest.astype(np.uint16) * 16, chest / 255.0, np.repeat(chest[..., None], 3, -1)):
            for concept, box in localizer.locate(close).items():
                assert box == pytest.approx(boxes[concept], abs=5)  # one cell of the transfer

    def test_another_size_of_the_same_chest(self, small_pool: ReferencePool, preset: str, chest: np.ndarray):
        localizer = AnatomyLocalizer(small_pool, preset)
        boxes = localizer.locate(chest)
        large = localizer.locate(Image.fromarray(chest).resize((1024, 1024), Image.Resampling.BICUBIC))
        for concept, box in boxes.items():
            assert np.divide(large[concept], 4) == pytest.approx(box, abs=6)

    def test_concepts_of_the_pool_only(self, phantom_pool: ReferencePool, preset: str, chest: np.ndarray):
        lungs = ("left lung", "right lung")
        some = [Reference(r.name, r.image, {c: r.masks[c] for c in lungs}) for r in phantom_pool[:3]]
        assert tuple(AnatomyLocalizer(ReferencePool(some), preset).locate(chest)) == lungs

    @pytest.mark.parametrize("value", [0, 90, 255])
    def test_blank_image(self, small_pool: ReferencePool, preset: str, value: int):
        """Nothing is shown, so each concept is where it is in the references: finite boxes inside the image."""
        boxes = AnatomyLocalizer(small_pool, preset).locate(np.full((120, 200), value, np.uint8))
        assert set(boxes) <= set(CONCEPTS)
        assert "left lung" in boxes
        for x1, y1, x2, y2 in boxes.values():
            assert 0 <= x1 < x2 <= 200
            assert 0 <= y1 < y2 <= 120

    def test_box_pool(self, box_pool: ReferencePool, preset: str):
        phantom = sample_phantom(1, size=256, findings=[])
        boxes = AnatomyLocalizer(box_pool, preset).locate(phantom.image)
        assert tuple(boxes) == CONCEPTS
        least = 0.25 if preset == "paper" else 0.8
        for lung in ("left lung", "right lung"):
            assert iou(boxes[lung], mask_box(phantom.masks[lung])) > least

    def test_masks_fit_their_boxes(self, small_pool: ReferencePool, preset: str, chest: np.ndarray):
        transfer = AnatomyLocalizer(small_pool, preset).localise(chest)
        for found in transfer.concepts.values():
            box = tight_box(found.mask)
            frame = Letterbox.fit(256, 256).to_frame([found.box])[0]
            assert box == pytest.approx(frame, abs=4.5)
        assert transfer.reference in {reference.name for reference in small_pool}


class TestPaper:
    def test_is_the_published_rule(self, small_pool: ReferencePool, chest: np.ndarray):
        """Step by step: least raw cost on 14 cells, transfer on 56, the smallest set with 75 %, its tight box."""
        frames = [np.asarray(Letterbox.fit(224, 224).apply(Image.fromarray(r.image)), float) for r in small_pool]
        target = np.asarray(Letterbox.fit(256, 256).apply(Image.fromarray(chest)), float)
        costs = []
        for frame in frames:
            plan = solve_grid_uot(image_weights(frame, 14), image_weights(target, 14), 0.05, 0.1)
            costs.append(plan.cost * plan.scale)
        best = int(np.argmin(costs))
        transfer = AnatomyLocalizer(small_pool, "paper").localise(chest)
        assert transfer.reference == small_pool[best].name
        plan = solve_grid_uot(image_weights(frames[best], 56), image_weights(target, 56), 0.05, 0.1)
        mask = small_pool[best].masks["left lung"].reshape(56, 4, 56, 4).mean((1, 3)) >= 0.5
        region = mass_set(plan.push(mask.astype(float)), 0.75)
        want = np.multiply(tight_box(region), 4 * 256 / 224)
        assert transfer.boxes["left lung"] == pytest.approx(tuple(want), abs=1e-6)

    def test_pot_gives_the_same_boxes(self, small_pool: ReferencePool, chest: np.ndarray):
        pytest.importorskip("ot")
        quick = {"transfer_grid": 28}
        grid = AnatomyLocalizer(small_pool, "paper", settings=quick).localise(chest)
        pot = AnatomyLocalizer(small_pool, "paper", settings={**quick, "solver": "pot"}).localise(chest)
        assert pot.boxes == grid.boxes
        assert pot.reference == grid.reference
        assert pot.details["mass"] == pytest.approx(grid.details["mass"], rel=1e-6)
        with pytest.raises(MethodError, match="unknown solver"):
            AnatomyLocalizer(small_pool, "paper", settings={"solver": "magic"}).locate(chest)

    def test_padding_has_no_weight(self, small_pool: ReferencePool):
        """Letterboxed in floating point, bicubic overshoot below zero lifts the padding above the support."""
        image = np.full((600, 300), 5, np.uint8)
        image[::2, 150:] = 250
        padded = _frame(image)
        assert padded.dtype == np.uint8
        weights = image_weights(padded, 56)
        assert not weights[:, :13].any()
        assert not weights[:, 43:].any()
        assert weights[:, 29:42].all()

    def test_settings_matter_and_are_checked(self, small_pool: ReferencePool, chest: np.ndarray):
        sharp = AnatomyLocalizer(small_pool, "paper", settings={"epsilon": 0.005}).locate(chest)
        plain = AnatomyLocalizer(small_pool, "paper").locate(chest)
        area = {k: (b[2] - b[0]) * (b[3] - b[1]) for k, b in plain.items()}
        sharper = {k: (b[2] - b[0]) * (b[3] - b[1]) for k, b in sharp.items()}
        assert sharper["left hilar structures"] < area["left hilar structures"]
        with pytest.raises(MethodError, match="does not divide"):
            AnatomyLocalizer(small_pool, "paper", settings={"transfer_grid": 50}).locate(chest)

    def test_thin_concept_keeps_cells(self):
        image = np.random.default_rng(0).integers(0, 255, (224, 224)).astype(np.uint8)
        mask = np.zeros((224, 224), bool)
        mask[100, 20:90] = True  # a quarter of a cell high
        pool = ReferencePool([Reference("a", image, {"left clavicle": mask})])
        from medfocus.paper import PaperSettings

        assert "left clavicle" in PublishedTransfer(pool, PaperSettings()).run(image).boxes


class TestMultiAtlas:
    def test_finds_every_concept_of_normal_phantoms(self, phantom_pool: ReferencePool):
        localizer = AnatomyLocalizer(phantom_pool)
        scores: dict[str, list[float]] = {}
        for seed in range(3):
            phantom = sample_phantom(200 + seed, size=320, findings=[])
            for concept, box in localizer.locate(phantom.image).items():
                scores.setdefault(concept, []).append(iou(box, mask_box(phantom.masks[concept])))
        means = {concept: float(np.mean(values)) for concept, values in scores.items()}
        assert min(means["left lung"], means["right lung"]) > 0.88, means
        assert means["cardiac silhouette"] > 0.75, means
        assert min(means.values()) > 0.4, means
        assert np.mean(list(means.values())) > 0.75, means

    def test_negative_image(self, small_pool: ReferencePool, chest: np.ndarray):
        localizer = AnatomyLocalizer(small_pool)
        plain, negative = localizer.localise(chest), localizer.localise(255 - chest)
        assert negative.details["inverted"]
        for concept in CONCEPTS:
            assert iou(plain.boxes[concept], negative.boxes[concept]) > 0.85

    @pytest.mark.parametrize("degrees", [-12, 12])
    def test_a_turned_chest(self, phantom_pool: ReferencePool, degrees: float):
        phantom = sample_phantom(268, size=256, findings=[])
        turned = Image.fromarray(phantom.image).rotate(degrees, Image.Resampling.BILINEAR)
        found = AnatomyLocalizer(phantom_pool).localise(turned)
        for lung in ("left lung", "right lung"):
            mask = Image.fromarray((phantom.masks[lung] * 255).astype(np.uint8)).rotate(degrees)
            assert iou(found.boxes[lung], mask_box(np.asarray(mask) > 127)) > 0.75
        assert found.confidence > 0.6

    def test_a_negative_that_correlates_little(self, phantom_pool: ReferencePool):
        phantom = sample_phantom(269, size=256, findings=[])
        found = AnatomyLocalizer(phantom_pool).localise(255 - np.asarray(phantom.image))
        assert found.details["inverted"]
        plain = AnatomyLocalizer(phantom_pool).localise(phantom.image)
        assert not plain.details["inverted"]
        for concept, box in plain.boxes.items():
            assert iou(found.boxes[concept], box) > 0.6

    def test_confidence_is_agreement_on_what_is_there(
        self, small_pool: ReferencePool, phantom_pool: ReferencePool, chest: np.ndarray, tmp_path: Path
    ):
        sure = AnatomyLocalizer(phantom_pool, cache=tmp_path).localise(chest)
        assert 0.7 < sure.confidence <= 1
        assert sure.confidence == AnatomyLocalizer(phantom_pool, cache=tmp_path).localise(chest).confidence
        noise = np.random.default_rng(0).integers(0, 255, (256, 256)).astype(np.uint8)
        localizer = AnatomyLocalizer(phantom_pool)
        assert localizer.localise(noise).confidence < 0.3
        for wrong in (
            chest[:, :128],
            chest[::-1],
        ):  # half a chest, upside down: the references agree on what is not there
            found = localizer.localise(wrong)
            assert np.mean([found.details["agreement"][f"{side} lung"] for side in ("left", "right")]) > 0.75
            assert found.confidence < 0.5
        only = AnatomyLocalizer(ReferencePool(phantom_pool[:1], "one")).localise(chest)
        assert only.confidence == pytest.approx(1.0, abs=0.15)  # it agrees with itself
        assert np.isnan(AnatomyLocalizer(small_pool, "paper").localise(chest).confidence)

    def test_confidence_of_pools_of_boxes_and_without_transport(
        self, small_pool: ReferencePool, box_pool: ReferencePool, chest: np.ndarray
    ):
        assert 0.7 < AnatomyLocalizer(box_pool).localise(chest).confidence <= 1
        assert AnatomyLocalizer(box_pool).localise(chest[::-1]).confidence < 0.5
        voted = AnatomyLocalizer(small_pool, settings={"transport": False}).localise(chest)
        agreement = [voted.details["agreement"][f"{side} lung"] for side in ("left", "right")]
        assert voted.confidence == pytest.approx(np.mean(agreement), rel=0.1)  # nothing says what is matched

    def test_letterboxed_image(self, small_pool: ReferencePool, chest: np.ndarray):
        localizer = AnatomyLocalizer(small_pool)
        framed = np.zeros((256, 400), np.uint8)
        framed[:, 72:328] = chest
        moved = localizer.locate(framed)
        for concept, box in localizer.locate(chest).items():
            assert np.subtract(moved[concept], (72, 0, 72, 0)) == pytest.approx(box, abs=5)

    def test_transport_changes_the_region(self, small_pool: ReferencePool, chest: np.ndarray):
        with_it, without = (
            AnatomyLocalizer(small_pool, settings={"transport": t}).locate(chest) for t in (True, False)
        )
        assert with_it != without

    def test_masks_and_boxes_mix(self, small_pool: ReferencePool, box_pool: ReferencePool, chest: np.ndarray):
        mixed = AnatomyLocalizer(ReferencePool([*small_pool[:2], *box_pool[2:]])).locate(chest)
        plain = AnatomyLocalizer(small_pool).locate(chest)
        for lung in ("left lung", "right lung"):
            assert iou(mixed[lung], plain[lung]) > 0.9

    def test_concept_outside_the_image_is_left_out(
        self, small_pool: ReferencePool, chest: np.ndarray, monkeypatch: pytest.MonkeyPatch
    ):
        tally = MultiAtlasTransfer._tally

        def nothing_for_the_heart(self, concept, *rest):
            vote, level = tally(self, concept, *rest)
            return (vote * 0 if concept == "cardiac silhouette" else vote), level

        monkeypatch.setattr(MultiAtlasTransfer, "_tally", nothing_for_the_heart)
        assert set(CONCEPTS) - set(AnatomyLocalizer(small_pool).locate(chest)) == {"cardiac silhouette"}

    def test_deterministic(self, small_pool: ReferencePool, chest: np.ndarray):
        assert AnatomyLocalizer(small_pool).locate(chest) == AnatomyLocalizer(small_pool).locate(chest)


class TestRefusals:
    def test_unknown_names(self, small_pool: ReferencePool):
        with pytest.raises(MethodError, match="unknown preset"):
            AnatomyLocalizer(small_pool, "atlas")  # type: ignore[arg-type]
        with pytest.raises(MethodError, match="no setting epsilon"):
            AnatomyLocalizer(small_pool, settings={"epsilon": 1})
        with pytest.raises(MethodError, match="not a segmenter"):
            AnatomyLocalizer(small_pool, refiner=3)  # type: ignore[arg-type]
        with pytest.raises(AtlasError):
            AnatomyLocalizer("no/such/pool")

    @pytest.mark.parametrize(
        "image",
        [np.zeros((4, 4, 2)), np.zeros(5), np.zeros((0, 5)), np.full((5, 5), np.nan), "missing.png", None, 3],
    )
    def test_what_is_not_an_image(self, small_pool: ReferencePool, image: object):
        with pytest.raises(ImageError):
            AnatomyLocalizer(small_pool).locate(image)  # type: ignore[arg-type]


def _lungs(folder: Path) -> list[Reference]:
    out = []
    with open(folder / "manifest.csv", encoding="utf-8") as file:
        names = [row["image"] for row in csv.DictReader(file) if row["has_lung_masks"] == "1"]
    for name in sorted(names):
        masks = {
            lung: np.asarray(Image.open(folder / f"masks/{Path(name).stem}__{lung.replace(' ', '_')}.png")) > 0
            for lung in ("left lung", "right lung")
        }
        out.append(Reference(name, np.asarray(Image.open(folder / "images" / name).convert("L")), masks))
    return out


@pytest.mark.heavy
def test_real_lungs(shared_data: Path):
    """16 real references, real targets: the accuracy that the project promises, and what the transport adds."""
    radiographs = _lungs(shared_data / "data/lungs")
    order = np.random.default_rng(0).permutation(len(radiographs))
    pool, targets = ReferencePool([radiographs[i] for i in order[:16]]), [radiographs[i] for i in order[16::3]]

    def mean_iou(localizer: AnatomyLocalizer) -> float:
        scores = []
        for target in targets:
            height, width = target.image.shape
            frame = Letterbox.fit(width, height)
            for lung, box in localizer.locate(target.image).items():
                scores.append(iou(*frame.to_frame([box, target.box(lung)])))
        return float(np.mean(scores))

    ours = mean_iou(AnatomyLocalizer(pool))
    assert ours > 0.85
    assert ours > mean_iou(AnatomyLocalizer(pool, settings={"transport": False})) + 0.005
    assert 0.45 < mean_iou(AnatomyLocalizer(pool, "paper")) < 0.7
