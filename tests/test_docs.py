"""The documentation site: a page for everything registered, pictures that are small and of what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from builder_scripts.docs.pages import write_pages
from builder_scripts.docs.pictures import FOLDER
from medground_bench.attribution.method import available_methods, get_method
from medground_bench.cli import app
from medground_bench.dataset.columns import COLUMNS
from medground_bench.scoring.protocols.protocol import available_protocols, get_protocol
from medground_bench.submission.format import HEADER_KEYS, ROW_KEYS
from tests.test_messages import commands

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("pages")
    (root / "methods").mkdir()
    (root / "methods" / "of_a_method_that_is_gone.rst").write_text("x")
    names = write_pages(root)
    assert names == sorted(str(p.relative_to(root)) for p in root.rglob("*.rst"))
    return {name: (root / name).read_text() for name in names}


def test_every_method_has_a_page_that_says_what_it_says_itself(pages: dict[str, str]) -> None:
    for name in available_methods():
        method, page = get_method(name), pages[f"methods/{name.replace('+', 'p')}.rst"]
        assert page.startswith(f"{name}\n{'=' * len(name)}\n")
        first = (method.function.__doc__ or "").strip().splitlines()[0]
        assert first in page
        assert f"--method {name} " in page
        plain = page.replace("\\", "")
        assert method.cost in plain
        assert method.reference in plain
        for parameter in vars(method.make_parameters()):
            assert f"``{parameter}``" in page
        assert f":doc:`{name} <" in pages["methods/index.rst"]


def test_every_protocol_and_command_and_key_is_on_its_page(pages: dict[str, str]) -> None:
    for name in available_protocols():
        page = pages[f"protocols/{name}.rst"]
        assert get_protocol(name).asks in page.replace("\\", "")
        assert all(f"``{measure.name}``" in page for measure in get_protocol(name).measures)
    assert app is not None
    for name, options in commands().items():
        assert not name or f"\n{name}\n-" in pages["commands.rst"]
        shown = {option for option in options - {"--help"} if name and option.startswith("-")}  # others are arguments
        assert all(f"``{option}``" in pages["commands.rst"] for option in shown)
    assert all(f"``{column}``" in pages["columns.rst"] for column in COLUMNS)
    assert all(f"``{key}``" in pages["keys.rst"] for key in (*HEADER_KEYS, *ROW_KEYS))


def test_every_method_has_a_picture_or_the_reason_why_not(pages: dict[str, str]) -> None:
    known = json.loads((FOLDER / "methods.json").read_text())
    assert set(known) == set(available_methods()), "python -m builder_scripts.docs.pictures --methods ..."
    for name, found in known.items():
        assert (FOLDER / "methods" / f"{name}.webp").is_file() == ("iou" in found)
        if "iou" not in found:
            assert found["error"] in pages[f"methods/{name.replace('+', 'p')}.rst"].replace("\\", "")
    assert {p.stem for p in (FOLDER / "methods").iterdir()} == {name for name, found in known.items() if "iou" in found}
    assert sum("iou" in found for found in known.values()) > 60


def test_pictures_are_small_and_shown() -> None:
    files = list(FOLDER.rglob("*.webp"))
    assert all(p.stat().st_size < 60_000 for p in files)
    assert sum(p.stat().st_size for p in files) < 1_500_000
    shown = set(re.findall(r"\]\(pictures/([\w.]+)\)", (DOCS / "concepts.md").read_text(encoding="utf-8")))
    assert shown == {p.name for p in FOLDER.glob("*.webp")}


@pytest.mark.heavy
def test_a_picture_is_drawn_again(tmp_path: Path) -> None:
    """What is committed is what the code draws today: the same answers, and the same scores."""
    from builder_scripts.docs.pictures import draw_concepts, draw_methods, make_scene

    scene = make_scene(tmp_path)
    known = json.loads((FOLDER / "methods.json").read_text())
    names = ["attention", "lrp", "sobel", "similarity_map"]
    drawn = draw_methods(scene, tmp_path / "methods", names)
    assert {name: found.keys() for name, found in drawn.items()} == {name: known[name].keys() for name in names}
    for name, found in drawn.items():  # processors round sums differently, and a box may gain a row of pixels
        assert found.get("iou", 0.0) == pytest.approx(known[name].get("iou", 0.0), abs=0.02)
        assert found.get("error") == known[name].get("error")
    draw_concepts(scene, tmp_path)
    assert {p.name for p in tmp_path.glob("*.webp")} == {p.name for p in FOLDER.glob("*.webp")}
