from __future__ import annotations

import pytest

from medground_bench.core.errors import BuildError, PublishError
from medground_bench.core.hub import hub_errors, is_repo_id, require_repo_id


@pytest.mark.parametrize("text", ["lab/bench", "my-lab/medground_bench.v2", "A1/b"])
def test_repositories(text: str) -> None:
    assert is_repo_id(text)
    require_repo_id(text, "lab/bench")


@pytest.mark.parametrize(
    "text",
    ["", "bench", "lab/bench/x", "/x", "lab/", "lab/..", "lab/a--b", "lab/a.git", "-lab/x", "lab/x.", "~/x", "./x"],
)
def test_what_is_no_repository(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("text", ["lab/x\n", "lab/ü", "lab /x", "lab/" + "x" * 97, "https://hf.co/lab/x"])
def test_what_is_nothing_like_a_repository(text: str) -> None:
    refused(text)


def refused(text: str) -> None:
    assert not is_repo_id(text)
    with pytest.raises(PublishError, match="is not a repository") as caught:
        require_repo_id(text, "lab/bench")
    assert "ORG/NAME, such as lab/bench" in str(caught.value)


def test_what_goes_wrong_on_the_way_is_told_and_what_is_ours_passes() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    with pytest.raises(PublishError, match="could not be reached: refused") as caught, hub_errors("lab/bench"):
        raise ConnectionRefusedError("refused")
    assert caught.value.where == "lab/bench"
    with pytest.raises(PublishError) as caught, hub_errors("lab/bench"):
        raise OfflineModeIsEnabled("offline")
    assert caught.value.remedy == "unset HF_HUB_OFFLINE"
    for ours in (BuildError("x"), TypeError("a bug"), FileNotFoundError(2, "No such file", "card.md")):
        with pytest.raises(type(ours)), hub_errors("lab/bench"):
            raise ours
