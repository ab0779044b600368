"""The dataset card says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from medground_bench.core.schema import LVLMS, question
from medground_bench.dataset.columns import COLUMNS
from medground_bench.dataset.released import COUNTS, RELEASED
from medground_bench.sources import source_info, source_names

CARD = Path(__file__).parents[2] / "dataset_card.md"


@pytest.fixture(scope="module")
def card() -> tuple[dict, str]:
    _, front, body = CARD.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def table(body: str, first_column: str) -> list[list[str]]:
    """Cells of the table whose header starts with a name."""
    lines = body.splitlines()
    start = next(i for i, line in enumerate(lines) if line.strip().startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.strip().startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return rows


def test_front_matter_is_what_the_hub_reads(card: tuple[dict, str]) -> None:
    front, body = card
    assert {"language", "task_categories", "pretty_name", "tags"} <= set(front)
    assert front["extra_gated_prompt"]
    assert all(kind in ("text", "checkbox") for kind in front["extra_gated_fields"].values())
    # Filled in by the build, never by hand.
    assert not {"license", "license_name", "configs", "dataset_info", "size_categories"} & set(front)
    assert body.count("<!-- credentialed -->") == body.count("<!-- /credentialed -->") > 0
    assert body.count("<!-- counts -->") == 1


def test_counts_are_those_the_builder_checks(card: tuple[dict, str]) -> None:
    rows = table(card[1], "LVLM")
    sources = ("imagenome", "vindr_cxr", "padchest_gr")
    told = {}
    for name, *numbers in rows[:-1]:
        match = re.fullmatch(r"`(\w+)` \((.+)\)", name)
        assert match
        assert LVLMS[match[1]] == match[2]
        values = [int(n.replace(",", "")) for n in numbers]
        assert sum(values[:3]) == values[3]
        told |= {(match[1], source): n for source, n in zip(sources, values[:3], strict=True)}
    assert told == COUNTS
    totals = [int(n.replace(",", "")) for n in rows[-1][1:]]
    assert totals == [sum(n for (_, s), n in COUNTS.items() if s == source) for source in sources] + [1880]
    assert RELEASED["direct"].records == totals[-1]
    assert f"`reason` has {RELEASED['reason'].records:,}" in card[1]


def test_shares_are_those_of_the_counts(card: tuple[dict, str]) -> None:
    total = sum(COUNTS.values())
    medgemma = sum(n for (model, _), n in COUNTS.items() if model.startswith("medgemma")) / total
    imagenome = sum(n for (_, source), n in COUNTS.items() if source == "imagenome") / total
    assert f"{medgemma:.0%}".replace("%", " %") in card[1]
    assert f"{imagenome:.0%}".replace("%", " %") in card[1]


def test_every_field_is_described(card: tuple[dict, str]) -> None:
    told = [name for row in table(card[1], "field") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(COLUMNS)


def test_every_source_is_named_with_its_licence(card: tuple[dict, str]) -> None:
    body = card[1]
    for name in source_names():
        info = source_info(name)
        assert f"`{name}`" in body
        if info.url.startswith("http"):
            assert info.url in body
    assert source_info("vindr_cxr").licence in body


def test_the_question_is_the_one_that_is_asked(card: tuple[dict, str]) -> None:
    assert question("{attribute}") in card[1]


def test_sections(card: tuple[dict, str]) -> None:
    headings = re.findall(r"^#{2,3} (.+)$", card[1], re.MULTILINE)
    for wanted in ("Motivation", "Construction", "Fields", "Gating", "Intended use", "Limits", "Biases", "Citation"):
        assert wanted in headings
