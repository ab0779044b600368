"""Extremal perturbations: the area that is asked for, around what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

torch = pytest.importorskip("torch")

from baselines.shared.soft_masks import area_loss, perturbed, smooth_mask  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from tests.baselines.kit import SoftPlayer, of_image, soft_dead  # noqa: E402
from tests.baselines.mask.test_planted_patch import PIXELS  # noqa: E402


@pytest.mark.parametrize(
    ("variant", "share"),
    [
        ("preserve", 0.95),
        # A little blur deletes all contrast: the rest of the area may lie anywhere.
        *(pytest.param(*case, marks=pytest.mark.heavy) for case in (("delete", 0.75), ("dual", 0.95))),
    ],
)
def test_the_mask_keeps_the_area_and_lies_where_the_score_is(variant: str, share: float) -> None:
    """A checkered image (the blur destroys it) whose top left quarter alone is scored by its contrast."""
    pixels = (np.indices((56, 56)).sum(0) % 2 * 255).astype(np.uint8)

    def contrast(image: Any) -> Any:
        return (image[:28, :28] - 127.5).abs().mean() / 25

    method = get_method("extremal_perturbation")
    player: Any = SoftPlayer(contrast)
    options = {"areas": (0.25,), "iterations": 300, "step": 4, "sigma": 8.0, "variant": variant}
    found = method.run(player, of_image(pixels), method.make_parameters(options))
    (area,) = found.extras["areas"]
    assert area == pytest.approx(0.25, abs=0.02)
    heat = np.asarray(found.heatmap)
    assert heat[:36, :36].sum() > share * heat.sum()
    if variant == "preserve":
        again = method.run(player, of_image(pixels), method.make_parameters(options | {"smooth": 0.05}))
        np.testing.assert_allclose(
            again.heatmap, gaussian_filter(heat, 0.05 * 56), atol=1e-6
        )  # and the same mask twice


def test_the_smooth_maximum_of_one_point() -> None:
    control = torch.zeros(1, 1, 9, 9)
    control[0, 0, 4, 4] = 1.0
    mask = smooth_mask(control, (9, 9), 2.0)[0, 0]
    assert float(mask[4, 4]) == pytest.approx(1.0, abs=0.05)
    near = np.exp(-2 * (2 / 2.0 - 0.5) ** 2)  # two points away, sigma 2
    share = np.exp(20 * near) / (np.exp(20 * near) + 80)
    assert float(mask[4, 6]) == pytest.approx(share * near, abs=0.02)


def test_the_area_by_hand() -> None:
    mask = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    assert float(area_loss(mask, 0.25)) == pytest.approx((0.25 + 0.0625) / 4)
    assert float(area_loss(mask, 0.5)) == pytest.approx((0.25 + 0.0625) / 4)


def test_levels_are_mixed_between_neighbours() -> None:
    levels = torch.arange(3.0)[:, None, None, None].expand(3, 1, 1, 4).clone()
    frame = perturbed(levels, torch.tensor([[[[1.0, 0.0, 0.5, 0.75]]]]))
    assert frame.flatten().tolist() == [0.0, 2.0, 1.0, 0.5]


def test_a_score_that_no_blur_changes_names_no_evidence() -> None:
    found = get_method("extremal_perturbation").run(SoftPlayer(soft_dead), of_image(PIXELS))  # type: ignore[arg-type]
    assert found.degenerate
