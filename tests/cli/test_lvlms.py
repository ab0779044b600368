"""The list of LVLMs, the survey that the docs show, and the check of servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from medground_bench.attribution.survey import SurveyRow, markdown, survey
from medground_bench.cli import app
from medground_bench.lvlm.catalogue import MEDICAL, catalogue
from medground_bench.lvlm.families import FAMILIES, TWO_TOWERS
from medground_bench.lvlm.testing import GENERIC
from tests.lvlm.toy_server import serving

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

DOCS = Path(__file__).parents[2] / "docs" / "lvlms.md"
SURVEYED = ["qwen2_5_vl", "gemma3", *GENERIC]


def table() -> str:
    found = re.search(r"<!-- survey -->\n(.*?)<!-- /survey -->", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def shown() -> list[str]:
    return re.findall(r"^\| `(\w+)`", table(), re.MULTILINE)


def test_the_table_of_the_docs_covers_what_can_be_built_or_says_what_it_does_not() -> None:
    assert sorted(shown() + pending()) == sorted(SURVEYED)


def pending() -> list[str]:
    left = re.search(r"^Not surveyed yet .*$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return re.findall(r"`(\w+)`", left[0]) if left else []


@pytest.mark.heavy
@pytest.mark.parametrize("family", shown())
def test_the_table_of_the_docs_is_what_the_command_prints(family: str) -> None:
    head, rule, row = markdown(list(survey([family]))).splitlines()
    lines = table().splitlines()
    assert lines[:2] == [head, rule]
    assert row in lines


@pytest.mark.heavy
def test_one_family_of_the_survey() -> None:
    methods = {"attention", "lrp", "gradcam", "integrated_gradients"}
    (row,) = survey(["qwen2_vl"], sizes=[(112, 112), (112, 140)], methods=methods)
    assert row.loads
    assert row.score_error < 1e-5
    assert row.measured == "16 of 16, 20 of 20"
    assert row.explicit_error is not None
    assert row.explicit_error < 0.05
    assert set(row.works) == methods
    assert not row.refuses
    assert markdown([row]).count("\n") == 3


def test_what_a_row_says() -> None:
    good = SurveyRow("a", True, 3e-6, "4 of 4", 0.001, ["x", "y"], [])
    bad = SurveyRow("b", False, 0.2, "none", None, ["x"], ["y"])
    lines = markdown([good, bad]).splitlines()
    assert lines[2] == "| `a` | yes | to 1e-5 | 4 of 4 | to 1 % of a token | all 2 |"
    assert lines[3] == "| `b` | no | no | none | - | 1; not `y` |"


def test_the_list_names_every_family_and_checkpoint() -> None:
    entries = {entry.family: entry for entry in catalogue()}
    assert set(entries) >= set(FAMILIES) | TWO_TOWERS | {"mllama"}
    assert "blip-2" not in entries
    assert {name for family in MEDICAL for name in entries[family].checkpoints} == {
        name for names in MEDICAL.values() for name in names
    }
    done = CliRunner().invoke(app, ["lvlms"])
    assert done.exit_code == 0
    assert "google/medsiglip-448" in done.output.replace("\n", "")
    assert "not read: StanfordAIMI/CheXagent-8b" in done.output


def test_a_server_is_checked(tiny_qwen: Lvlm) -> None:
    with serving(tiny_qwen, "tiny") as server:
        done = CliRunner().invoke(app, ["lvlms", "--check", server.address])
        assert done.exit_code == 0, done.output
        assert "repeats_within: 0.0" in done.output
        assert "compared with nothing" in done.output
