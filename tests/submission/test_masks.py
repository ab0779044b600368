"""Masks of submissions: COCO run lengths (golden strings of pycocotools 2.0.11), PNG files, and faults in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import MedGroundError, SubmissionError
from medground_bench.submission import validate_submission, write_submission
from medground_bench.submission.masks import decode_rle, encode_rle, mask_shape_fault, read_mask
from tests.scoring.folders import header, make_rows, write_folder

DISC = (
    "mdP1k0\\8:F:H6J6J6K4K6K4L4L4M2M4L4M2M4M2N2M4M2N2N2M4M2N2N2N2N2N2N2O0O2N2N2N2O0O2N2N2O0O2N2O0O2O0O2N2O0O2O0O2O0O2O0"
    "00O2O0O2O000O2O000O2O000O2O0000000O2O0000000O2O0000000000000000000000000000000000000000000000000001N100000001N1000"
    "00001N10001N10001N10001N101N10001N101N101N101N2N101N101N2N101N2N2N101N2N2N2N101N2N2N2N2N2N2N3L3N2N2N3L3N2N3L3N3L4L"
    "3N3L4L4L5J5L5J6J6J8F:FTSP1"
)


@pytest.mark.parametrize(
    ("seed", "shape", "share", "text"),
    [(0, (3, 3), 0.5, "1110100"), (2, (7, 200), 0.02, None)],
)
def test_compressed_text(seed: int, shape: tuple[int, int], share: float, text: str | None) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    text = text or "`11i10U10WM0l40dK0k00gN0[10`N0c20_M04070]10YO0Q10Z30lJ0L0^10QO0n30UM0_N0J0`00A0a2"
    assert np.array_equal(decode_rle({"size": list(shape), "counts": text}), mask)


def test_a_disc() -> None:
    y, x = np.ogrid[:300, :400]
    assert np.array_equal(decode_rle({"size": [300, 400], "counts": DISC}), (y - 150) ** 2 + (x - 200) ** 2 < 90**2)


@pytest.mark.parametrize("first", [False, True])
def test_run_lengths_there_and_back(first: bool) -> None:
    mask = np.random.default_rng(3).random((17, 23)) < 0.4
    mask[0, 0] = first
    assert np.array_equal(decode_rle(encode_rle(mask)), mask)
    assert encode_rle(np.ones((2, 3), bool)) == {"size": [2, 3], "counts": [0, 6]}
    assert encode_rle(np.zeros((2, 3), bool)) == {"size": [2, 3], "counts": [6]}


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 2], "counts": [3]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [2.0, 2.0]},
        {"size": [2, 2], "counts": "\x00"},
        {"size": [2, 2], "counts": "ooooooooooooooooooooooooo"},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
    ],
)
def test_runs_that_are_none(rle: Any) -> None:
    with pytest.raises(SubmissionError):
        decode_rle(rle)


def test_png(tmp_path: Path) -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3, 2:4] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path, "a.png", (5, 4)), mask > 0)
    with pytest.raises(SubmissionError, match="5 x 4 pixels"):
        read_mask(tmp_path, "a.png", (4, 5))
    mask[0, 0] = 7
    Image.fromarray(mask).save(tmp_path / "b.png")
    with pytest.raises(SubmissionError, match="3 values"):
        read_mask(tmp_path, "b.png", (5, 4))
    with pytest.raises(SubmissionError, match="no mask can be read"):
        read_mask(tmp_path, "c.png", (5, 4))
    with pytest.raises(MedGroundError, match="leaves its folder"):
        read_mask(tmp_path, "../a.png", (5, 4))


def test_forms() -> None:
    good = {"size": [2, 2], "counts": [4]}
    assert mask_shape_fault([good, "a.png"]) is None
    for bad in ("a.png", [1], [{}], [{"size": [2], "counts": []}], [{"size": [2, True], "counts": []}], [good] * 101):
        assert mask_shape_fault(bad)


def test_validate_warns_of_masks_that_cannot_be_evaluated(tmp_path: Path) -> None:
    """The boxes of the row still can, so that it is no fault; a form that is none is one."""
    rows = make_rows(2, lvlms=("tiny_a",))
    folder = write_folder(tmp_path / "dataset", rows)
    predictions = [
        {"id": rows[0]["id"], "boxes": [], "masks": [{"size": [2, 2], "counts": [4]}]},
        {"id": rows[1]["id"], "boxes": [], "masks": [encode_rle(np.ones((rows[1]["height"], rows[1]["width"]), bool))]},
    ]
    report = validate_submission(write_submission(tmp_path / "s", header(rows), predictions), folder)
    assert report.valid
    assert [(w.code, w.field) for w in report.warnings] == [("masks", "masks[0]")]
    predictions[0]["masks"] = "a.png"
    report = validate_submission(write_submission(tmp_path / "s", header(rows), predictions), folder)
    assert [f.code for f in report.faults] == ["masks"]
