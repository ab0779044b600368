from __future__ import annotations

import socket
from pathlib import Path

import pytest

from medground_bench.core.errors import BuildError, MedGroundError, PublishError
from medground_bench.core.hub import hub_errors, is_repo_id, local_only, require_repo_id


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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """A server that accepts connections, and is the Hub."""
    from huggingface_hub import constants

    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return server


def test_a_hub_out_of_reach_is_told_at_once(hub: socket.socket, tmp_path: Path) -> None:
    with hub:
        assert not local_only("lab/nothing", "--set x=FOLDER")
    with pytest.raises(MedGroundError, match="cannot be reached") as caught:  # the server is gone
        local_only("lab/nothing", "--set x=FOLDER")
    assert "give its folder as --set x=FOLDER" in str(caught.value)
    assert not local_only(str(tmp_path), "x")


def test_what_is_in_the_cache_needs_no_hub(hub: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    hub.close()
    config = tmp_path / "config.json"
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, file: str(config), raising=False)
    assert local_only("lab/known", "x")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, file: None, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MedGroundError, match="told to be offline") as caught:
        local_only("lab/unknown", "x")
    assert "unset HF_HUB_OFFLINE" in str(caught.value)


def test_what_goes_wrong_on_the_way_is_told_and_what_is_ours_passes() -> None:
    from huggingface_hub.errors import OfflineModeIsEnabled

    with pytest.raises(PublishError, match="could not be reached: refused") as caught, hub_errors("lab/bench"):
        raise ConnectionRefusedError("refused")
    assert caught.value.where == "lab/bench"
    assert "push again" in str(caught.value)
    with pytest.raises(PublishError, match="reached") as caught, hub_errors("lab/bench", "submit"):
        raise ConnectionRefusedError("refused")
    assert "submit again" in str(caught.value)
    assert "push" not in str(caught.value)
    with pytest.raises(PublishError) as caught, hub_errors("lab/bench"):
        raise OfflineModeIsEnabled("offline")
    assert caught.value.remedy == "unset HF_HUB_OFFLINE"
    for ours in (BuildError("x"), TypeError("a bug"), FileNotFoundError(2, "No such file", "card.md")):
        with pytest.raises(type(ours)), hub_errors("lab/bench"):
            raise ours
