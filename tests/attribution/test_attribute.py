"""One method on one image: the result, its scores and its picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution.attribute import attribute
from medground_bench.attribution.method import as_method, get_method
from medground_bench.attribution.picture import colour_map
from medground_bench.attribution.results import Attribution
from medground_bench.core.errors import MedGroundError, MethodError
from medground_bench.dataset.columns import Record

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

EVIDENCE = (100.0, 40.0, 180.0, 90.0)


def picture(width: int = 400, height: int = 200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(60, 90, (height, width), dtype=np.uint8))


def record(lvlm: Lvlm | None, **changes: Any) -> Record:
    facts: dict[str, Any] = {
        "id": "m/direct/phantom/a/nodule",
        "dataset": "phantom",
        "model": lvlm.key if lvlm else "other",
        "mode": "direct",
        "image_id": "a",
        "patient_id": "p",
        "width": 400,
        "height": 200,
        "attribute": "nodule",
        "question": "Is there a nodule?",
        "response": "Yes",
        "boxes": (EVIDENCE,),
        "load_image": picture,
    }
    return Record(**{**facts, **changes})


def half(lvlm: Any, episode: Any, share: float = 0.5, *, shift: int = 0) -> list[list[float]]:
    x1, y1, x2, y2 = EVIDENCE
    return [[x1 + shift, y1, x1 + shift + (x2 - x1) * share, y2]]


def test_a_function_of_mine_with_options(tiny_qwen: Lvlm) -> None:
    result = attribute(record(tiny_qwen), half, tiny_qwen)
    assert result.boxes == [(100, 40, 140, 90)]
    assert result.score() == {"iou": 0.5, "precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert attribute(record(tiny_qwen), half, tiny_qwen, share=1).score()["iou"] == 1
    assert attribute(record(tiny_qwen), half, tiny_qwen, share=1.0, shift=40).score()["iou"] == pytest.approx(1 / 3)
    assert (result.method, result.question, result.response) == ("half", "Is there a nodule?", "Yes")
    assert "".join(result.tokens) == "Yes"
    with pytest.raises(MethodError, match="no parameter shar"):
        attribute(record(tiny_qwen), half, tiny_qwen, shar=1)
    with pytest.raises(MethodError, match="share of method 'half' cannot be 'all'"):
        attribute(record(tiny_qwen), half, tiny_qwen, share="all")


def test_registered_methods_by_name_and_object(tiny_qwen: Lvlm) -> None:
    named = attribute(record(tiny_qwen), "occlusion", tiny_qwen, rows=2, cols=3)
    given = attribute(record(tiny_qwen), get_method("occlusion"), tiny_qwen, rows=2, cols=3)
    assert named.boxes == given.boxes
    assert named.attribution.heatmap is not None
    assert named.attribution.heatmap.shape == (2, 3)
    assert named.heatmap is not None
    assert named.heatmap.shape == (200, 400)


def test_an_unknown_name_suggests_the_nearest(tiny_qwen: Lvlm) -> None:
    with pytest.raises(MethodError, match="no method named 'oclusion'") as caught:
        attribute(record(tiny_qwen), "oclusion", tiny_qwen)
    assert "did you mean 'occlusion'?" in str(caught.value)


def test_any_picture(tiny_qwen: Lvlm, tmp_path: Path) -> None:
    asked = {"question": "Is there a nodule?", "response": "Yes"}
    image = picture()
    image.save(tmp_path / "a.png")
    results = [attribute(t, half, tiny_qwen, **asked) for t in (image, np.asarray(image), tmp_path / "a.png")]
    for result in results:
        assert result.image.tobytes() == image.tobytes()
        assert result.boxes == [(100, 40, 140, 90)]
    with pytest.raises(MedGroundError, match="no evidence"):
        results[0].score()
    assert results[0].score([EVIDENCE])["iou"] == 0.5
    assert results[0].score([(100, 40, 140, 90), (390, 190, 500, 500)])["iou"] == pytest.approx(2000 / 2100)  # cut
    with pytest.raises(MedGroundError, match="box"):
        results[0].score([[1, 2, 3]])
    with pytest.raises(MedGroundError, match="a question and the LVLM's response"):
        attribute(image, half, tiny_qwen, question="Is there a nodule?")
    with pytest.raises(MethodError, match="list is no image"):
        attribute([[1]], half, tiny_qwen, **asked)  # type: ignore[arg-type]


def test_a_record_of_another_lvlm(tiny_qwen: Lvlm) -> None:
    with pytest.raises(MedGroundError, match="the response of other"):
        attribute(record(None), half, tiny_qwen)
    assert attribute(record(None), half, tiny_qwen, response="No").response == "No"
    with pytest.raises(MedGroundError, match="response"):  # a candidate has none
        attribute(record(None, model=None, mode=None, response=None), half, tiny_qwen)


@pytest.mark.parametrize("function", [lambda: None, lambda lvlm: None, 7, None])
def test_what_is_no_method(function: Any) -> None:
    with pytest.raises(MethodError, match=r"as a method|not a method"):
        as_method(function)


def test_a_function_without_defaults_and_a_mutable_default() -> None:
    def needs(lvlm: Any, episode: Any, size: int, places: list[int] = [1]) -> list[Any]:  # noqa: B006
        return [size, *places]

    found = as_method(needs)
    with pytest.raises(MethodError, match="size"):
        found.make_parameters()
    one, other = found.make_parameters({"size": 3}), found.make_parameters({"size": 3})
    one.places.append(2)
    assert found.function(None, None, other) == [3, 1]  # type: ignore[arg-type]
    assert as_method(lambda lvlm, episode: []).name == "function"


# --- the picture


def test_the_picture_holds_evidence_and_boxes_where_they_are(tiny_qwen: Lvlm, tmp_path: Path) -> None:
    result = attribute(record(tiny_qwen), lambda lvlm, episode: [[200, 100, 300, 180]], tiny_qwen)
    drawn = result.plot(tmp_path / "out.png")
    pixels = np.asarray(Image.open(tmp_path / "out.png"))
    assert (pixels == np.asarray(drawn)).all()
    scale = 2  # 400 pixels are fewer than 448
    assert pixels.shape[1] == 400 * scale
    assert pixels.shape[0] > 200 * scale
    image = pixels[: 200 * scale]
    white = np.argwhere((image == 255).all(axis=2))
    assert (white.min(axis=0) / scale).tolist() == [100, 200]
    assert ((white.max(axis=0) + 1) / scale).tolist() == [180, 300]
    blue = np.argwhere((image == (0x35, 0xD0, 0xFF)).all(axis=2))
    assert (blue.min(axis=0) / scale).tolist() == [40, 100]
    assert ((blue.max(axis=0) + 1) / scale).tolist() == [90, 180]
    with pytest.raises(MedGroundError, match="no picture format"):
        result.plot(tmp_path / "out.xyz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.png"]


def test_heat_is_where_it_was(tiny_qwen: Lvlm) -> None:
    def map_(lvlm: Any, episode: Any) -> np.ndarray:
        heat = np.zeros((200, 400))
        heat[120:180, 300:380] = 1
        return heat

    result = attribute(record(tiny_qwen), map_, tiny_qwen)
    pixels = np.asarray(result.plot())[:400].astype(int)
    coloured = pixels.max(axis=2) - pixels.min(axis=2)
    assert coloured[300:340, 640:720].min() > 40
    assert coloured[:60].max() < 10
    nothing = attribute(record(tiny_qwen), lambda lvlm, episode: np.zeros((200, 400)), tiny_qwen)
    assert nothing.attribution.degenerate
    assert "degenerate" in nothing._caption()[2]


def test_the_colour_map_grows_brighter_evenly() -> None:
    colours = colour_map(np.linspace(0, 1, 65)).astype(float)
    luminance = colours @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()
    assert colours[0].max() < 8
    assert luminance[-1] > 240


def test_what_a_notebook_shows_is_escaped(tiny_qwen: Lvlm) -> None:
    def say(lvlm: Any, episode: Any) -> Attribution:
        scores = np.ones(len(episode.tokens))
        return Attribution(boxes=[], token_scores=scores, concept_scores={"<b>lung</b>": 1.0})

    shown = attribute(record(tiny_qwen, response="<script>Yes</script>"), say, tiny_qwen)._repr_html_()
    assert shown.startswith("<img")
    assert "<script>" not in shown
    assert "&lt;b&gt;lung&lt;/b&gt;" in shown
