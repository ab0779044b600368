"""The method contract and its registry: what a third party's package can rely on."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from medground_bench.attribution import method as methods
from medground_bench.attribution.method import Attribution, available_methods, describe_methods, get_method, method
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox
from medground_bench.lvlm.grid import TokenGrid

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "third_party_method"
BUILT_IN = {
    "attention",
    "rollout",
    "lrp",
    "grad_attention",
    "gradcam",
    "gradcam++",
    "integrated_gradients",
    "occlusion",
    "rise",
    "prompting",
    "prompting_medsam",
}


@dataclass(frozen=True)
class Options:
    amount: float = 1.5
    count: int = 3
    name: str = "a"
    flag: bool = False
    limit: int | None = None
    sizes: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


def make(result: Any, **options: Any) -> methods.Method:
    @method("test", family="control", parameters=Options, **options)
    def function(lvlm: Any, episode: Any, parameters: Any) -> Any:
        return result(parameters) if callable(result) else result

    return function


def episode(width: int = 400, height: int = 200) -> Any:
    return SimpleNamespace(letterbox=Letterbox.fit(width, height, 224), token_grid=TokenGrid(8, 8, (224, 224)))


LVLM: Any = None


# -- results --------------------------------------------------------------------------------------------------------


def test_a_heat_map_becomes_boxes_in_native_pixels() -> None:
    heat = np.zeros((224, 224))
    heat[112:140, 56:112] = 1  # the 400 x 200 image lies in rows 56 to 168 at scale 0.56
    attribution = make(heat).run(LVLM, episode())
    assert attribution.boxes == [pytest.approx((100.0, 100.0, 200.0, 150.0))]
    assert attribution.heatmap is not None
    assert not attribution.degenerate


@pytest.mark.parametrize("heat", [np.zeros((8, 8)), np.full((8, 8), 3.0), np.full((8, 8), np.nan)])
def test_a_map_without_evidence_is_the_whole_image_and_says_so(heat: np.ndarray) -> None:
    attribution = make(heat).run(LVLM, episode())
    assert attribution.boxes == [(0.0, 0.0, 400.0, 200.0)]
    assert attribution.degenerate


def test_boxes_and_attributions_pass_through() -> None:
    assert make([[1, 2, 3, 4]]).run(LVLM, episode()).boxes == [(1.0, 2.0, 3.0, 4.0)]
    assert make([]).run(LVLM, episode()).boxes == []
    given = Attribution(boxes=[], concept="left lung")
    assert make(given).run(LVLM, episode()) == given


@pytest.mark.parametrize("result", ["boxes", 7, None, np.zeros(5), [[1, 2, 3]], [7], {"boxes": []}])
def test_other_results_are_refused_by_name(result: Any) -> None:
    with pytest.raises(MethodError, match="method 'test' returned"):
        make(result).run(LVLM, episode())


# -- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_have_defaults_and_can_be_replaced() -> None:
    found = make(lambda p: [[p.amount, p.count, 9, 9]])
    assert found.run(LVLM, episode()).boxes == [(1.5, 3.0, 9.0, 9.0)]
    parameters = found.make_parameters({"amount": 2, "limit": 7, "sizes": (4,)})
    assert (parameters.amount, type(parameters.amount), parameters.limit) == (2.0, float, 7)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ammount": 1}, "has no parameter ammount"),
        ({"amount": "much"}, "amount of method 'test' cannot be 'much'"),
        ({"count": 1.5}, "count of method 'test' cannot be 1.5"),
        ({"count": True}, "cannot be True"),
        ({"flag": 1}, "cannot be 1"),
        ({"name": 3}, "cannot be 3"),
        ({"count": -1}, "refuses its parameters: count must not be negative"),
    ],
)
def test_wrong_parameters_are_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        make([]).make_parameters(overrides)


def test_unknown_needs_are_refused() -> None:
    with pytest.raises(MethodError, match="needs unknown telepathy"):
        make([], needs=("telepathy",))


# -- the registry ---------------------------------------------------------------------------------------------------


def test_the_eleven_baselines_are_registered() -> None:
    assert set(available_methods()) >= BUILT_IN
    for name in BUILT_IN:
        found = get_method(name)
        assert (found.name, bool(found.cost), bool(found.reference)) == (name, True, True)
        found.make_parameters()
        assert found.parameters.__doc__


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(MethodError, match="no method named 'gradcan'") as caught:
        get_method("gradcan")
    assert "gradcam" in str(caught.value)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Replace what is registered by (name, value) pairs."""

    def register(*pairs: tuple[str, str]) -> None:
        entries = [metadata.EntryPoint(name, value, methods.ENTRY_POINT_GROUP) for name, value in pairs]
        monkeypatch.setattr(methods.metadata, "entry_points", lambda group: entries)
        methods._entry_points.cache_clear()

    yield register
    methods._entry_points.cache_clear()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("x", "no_such_package:x")], "cannot be imported"),
        ([("x", "json:no_such_name")], "cannot be imported"),
        ([("x", "json:dumps")], "is not a method"),
        ([("x", "baselines.perturbation.rise:rise")], "calls itself 'rise'"),
        ([("x", "json:dumps"), ("x", "json:loads")], "more than one package"),
    ],
)
def test_broken_registrations_are_named(registry: Any, pairs: list[tuple[str, str]], message: str) -> None:
    registry(*pairs)
    with pytest.raises(MethodError, match=message):
        get_method("x")
    registry(*pairs, ("rise", "baselines.perturbation.rise:rise"))
    assert [(entry["name"], entry["error"] is None) for entry in describe_methods()] == [("rise", True), ("x", False)]


def test_one_package_found_twice_is_no_clash(registry: Any) -> None:
    registry(("rise", "baselines.perturbation.rise:rise"), ("rise", "baselines.perturbation.rise:rise"))
    assert get_method("rise").name == "rise"


# -- a third party's package ----------------------------------------------------------------------------------------


def test_the_example_package_is_short() -> None:
    assert len((EXAMPLE / "brightness_method.py").read_text(encoding="utf-8").splitlines()) <= 16


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as an installer lays it out: the module, and metadata with the entry point of its pyproject.toml."""
    text = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    line = text.split('[project.entry-points."medground_bench.methods"]\n')[1].split("\n")[0]
    (tmp_path / "brightness_method.py").write_bytes((EXAMPLE / "brightness_method.py").read_bytes())
    info = tmp_path / "brightness_method-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness-method\nVersion: 0.1.0\n", encoding="utf-8")
    points = f"[{methods.ENTRY_POINT_GROUP}]\n{line.replace(chr(34), '')}\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    methods._entry_points.cache_clear()
    yield tmp_path
    methods._entry_points.cache_clear()
    sys.modules.pop("brightness_method", None)


def test_the_example_package_adds_a_method(installed: Path) -> None:
    from PIL import Image

    assert "brightness" in available_methods()
    found = get_method("brightness")
    pixels = np.full((200, 400), 40, np.uint8)
    pixels[50:150, 100:300] = 200  # a quarter of the image: the protocol keeps the hottest tenth at least
    box = Letterbox.fit(400, 200, 224)
    case: Any = SimpleNamespace(letterbox=box, frame=box.apply(Image.fromarray(pixels)).convert("RGB"))
    attribution = found.run(LVLM, case, found.make_parameters({"power": 3}))
    assert attribution.boxes[0] == pytest.approx((100, 50, 300, 150), abs=6)
    assert {e["name"]: e["parameters"] for e in describe_methods()}["brightness"] == {"power": 2.0}


@pytest.mark.heavy
def test_the_example_package_installs_with_pip(tmp_path: Path) -> None:
    source = shutil.copytree(EXAMPLE, tmp_path / "source")  # the build leaves files beside the sources
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*install, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = "from medground_bench.attribution.method import get_method; print(get_method('brightness').family)"
    listed = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(target)}, capture_output=True, text=True, check=False
    )
    assert listed.stdout.strip() == "control", listed.stderr


# -- the command ----------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_json() -> None:
    from medground_bench.cli import app

    table = CliRunner().invoke(app, ["methods"])
    assert table.exit_code == 0
    for name in BUILT_IN:
        assert f" {name} " in table.output
    assert "1 F + 1 B" in table.output
    entries = json.loads(CliRunner().invoke(app, ["methods", "--format", "json"]).output)
    rise = next(entry for entry in entries if entry["name"] == "rise")
    assert (rise["family"], rise["cost"], rise["parameters"]["seed"]) == ("perturbation", "256 F", 0)
    lrp = next(entry for entry in entries if entry["name"] == "lrp")
    assert lrp["needs"] == ["white_box", "geometry", "gradients"]


def test_a_broken_package_does_not_break_the_list(registry: Any) -> None:
    from medground_bench.cli import app

    registry(("x", "no_such_package:x"), ("rise", "baselines.perturbation.rise:rise"))
    result = CliRunner().invoke(app, ["methods"])
    assert result.exit_code == 0
    assert "cannot be used" in result.output
    assert "Petsiuk" in result.output


def test_listing_the_methods_needs_no_torch() -> None:
    code = (
        "import sys; from medground_bench.attribution.method import describe_methods; found = describe_methods();"
        "print(len(found), 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, torch, transformers = done.stdout.split()
    assert int(count) >= 11
    assert (torch, transformers) == ("False", "False")
