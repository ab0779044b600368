"""The table of real evidence: measured rows equal to the boxes they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from medground_bench.imaging.read import image_size
from medground_bench.sources import open_source
from medground_bench.sources.distributions import ANY, DISTRIBUTIONS, distribution, measure


def test_measure_known_boxes() -> None:
    left, right = (10.0, 20.0, 30.0, 40.0), (70.0, 20.0, 90.0, 60.0)
    samples = [("nodule", [left, right], (100, 200))] * 5 + [("mass", [left], (100, 200)), ("mass", [], (100, 200))]
    nodule, everything = measure("x", samples)  # one mass is too few for a row of its own
    assert (nodule.finding, nodule.boxes, nodule.candidates) == ("nodule", 10, 5)
    assert nodule.area == pytest.approx((0.02,) * 4 + (0.03,) + (0.04,) * 4)
    assert nodule.evidence == (0.06,) * 9
    assert nodule.aspect == (0.5, 0.75, 1.0)
    assert nodule.x == (0.5, 0.3)
    assert nodule.y == (0.175, 0.025)
    assert nodule.offset == (0.3, 0.0)
    assert nodule.right == 0.5
    assert (everything.finding, everything.boxes, everything.candidates) == (ANY, 11, 6)


def test_overlapping_boxes_count_once_in_the_evidence() -> None:
    (row,) = measure("x", [("mass", [(0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0)], (100, 100))])
    assert row.evidence == (0.015,) * 9


def test_rows_are_plausible_and_found_by_name() -> None:
    assert distribution("Cardiomegaly").area[4] > distribution("Nodule").area[4]
    assert distribution(ANY, "chestx_det").boxes == 294
    with pytest.raises(KeyError, match="Cyst"):
        distribution("Cyst")
    for row in DISTRIBUTIONS:
        assert len(row.area) == len(row.evidence) == 9
        assert list(row.area) == sorted(row.area)
        assert row.area[0] > 0
        assert row.area[-1] < 1


@pytest.mark.parametrize("source", ["nih_cxr14", "chestx_det", "rsna"])
def test_rows_are_what_the_boxes_say(shared_data: Path, source: str) -> None:
    samples = [
        (c.attribute, c.boxes, image_size(c.image_path)) for c in open_source(source, shared_data / "data" / source)
    ]
    measured = measure(source, samples)
    # RSNA has one finding: a row of all findings together would only repeat it.
    assert measured[: 1 if source == "rsna" else None] == [row for row in DISTRIBUTIONS if row.source == source]
