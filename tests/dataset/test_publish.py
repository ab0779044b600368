"""Publishing, against a hub on this machine: what goes up, and above all what does not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medground_bench.core.errors import BuildError, PublishError
from medground_bench.core.schema import masked_id
from medground_bench.dataset.columns import WITHHELD
from medground_bench.dataset.folder import open_folder, read_build_record
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.publish import credentialed_sources, ids_only_copy, publish
from medground_bench.dataset.write import build_folder
from medground_bench.sources.phantom import write_source
from tests.local_hub import LocalHub

REPO = "lab/medground-bench"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Dataset folders of an open source, of a credentialed one, and of both."""
    root = tmp_path_factory.mktemp("publish")
    sources = {}
    for layout in ("phantom", "imagenome"):
        sources[layout] = str(write_source(layout, root / "sources" / layout, 4, size=112).root)
    out = {}
    for name, keys in {"open": ["phantom"], "closed": ["imagenome"], "mixed": ["phantom", "imagenome"]}.items():
        settings = BuildSettings("candidates", {key: sources[key] for key in keys})
        out[name], _ = build_folder(settings, root / name)
    return out


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    # The suite is offline; this hub is on this machine.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with LocalHub() as server:
        yield server


def push(hub: LocalHub, folder: Path, repo: str = REPO, **options: object) -> object:
    return publish(folder, repo, endpoint=hub.url, token=hub.token, **options)  # type: ignore[arg-type]


def rows(data: bytes) -> list[dict]:
    return pq.read_table(io.BytesIO(data)).to_pylist()


def test_goes_to_a_private_gated_repository(hub: LocalHub, folders: dict[str, Path]) -> None:
    done = push(hub, folders["closed"])
    repository = hub.dataset(REPO)
    assert (repository.private, repository.gated) == (True, "manual")
    record = read_build_record(folders["closed"])
    names = {"README.md", "build.json", *record["configs"]["candidates"]["files"]}
    assert set(repository.files) - {".gitattributes"} == names == set(done.files)
    for name in names:
        assert repository.files[name] == (folders["closed"] / name).read_bytes()
    assert done.private
    assert done.url == f"{hub.url}/datasets/{REPO}"
    # Private from its first moment; gated before the first byte of data.
    (created,) = hub.asked("POST", "/api/repos/create")
    assert created.body.get("visibility") == "private" or created.body.get("private") is True
    (settings,) = hub.asked("PUT", f"/api/datasets/{REPO}/settings")
    assert settings.body["gated"] == "manual"
    order = [r.path for r in hub.requests]
    assert order.index(f"/api/datasets/{REPO}/settings") < order.index(f"/api/datasets/{REPO}/commit/main")


def test_what_was_pushed_opens_again(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    push(hub, folders["mixed"])
    for name, data in hub.dataset(REPO).files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(data)
    copy = open_folder(tmp_path, "candidates")
    copy.verify()
    assert list(copy) == list(open_folder(folders["mixed"], "candidates"))


@pytest.mark.parametrize("name", ["closed", "mixed"])
def test_credentialed_data_never_become_public(hub: LocalHub, folders: dict[str, Path], name: str) -> None:
    with pytest.raises(PublishError, match="Credentialed Health Data License"):
        push(hub, folders[name], public=True)
    # Nothing at all was asked of the hub.
    assert hub.requests == []
    hub.add("dataset", REPO, private=False)
    with pytest.raises(PublishError, match="the repository exists and is public"):
        push(hub, folders[name])
    assert hub.dataset(REPO).files == {}
    assert hub.asked("POST", "commit|preupload") == []


def test_the_rows_decide_not_the_record(folders: dict[str, Path], tmp_path: Path) -> None:
    """A build record that says 'open' does not open credentialed rows."""
    import shutil

    forged = tmp_path / "forged"
    shutil.copytree(folders["closed"], forged)
    record = json.loads((forged / "build.json").read_text())
    record["configs"]["candidates"]["sources"] = {"phantom": {"credentialed": False}}
    record["configs"]["candidates"]["counts"] = [{"model": None, "dataset": "phantom", "rows": 1}]
    (forged / "build.json").write_text(json.dumps(record))
    assert credentialed_sources(forged) == ("imagenome",)


def test_open_data_may_be_public_on_request_only(hub: LocalHub, folders: dict[str, Path]) -> None:
    done = push(hub, folders["open"], public=True)
    assert not done.private
    assert hub.dataset(REPO).private is False
    push(hub, folders["open"], public=True)  # again, into the public repository
    with pytest.raises(PublishError, match="exists and is public"):
        push(hub, folders["open"])
    push(hub, folders["open"], "lab/other")
    assert hub.dataset("lab/other").private is True


def test_a_private_repository_is_not_made_public(hub: LocalHub, folders: dict[str, Path]) -> None:
    """Its history may hold what must stay private, even if the new upload does not."""
    push(hub, folders["closed"])
    with pytest.raises(PublishError, match="history"):
        push(hub, folders["closed"], ids_only=True, public=True)
    assert hub.dataset(REPO).private is True


def test_ids_only_says_nothing_but_ids(hub: LocalHub, folders: dict[str, Path]) -> None:
    done = push(hub, folders["mixed"], ids_only=True, public=True)
    assert done.ids_only
    files = hub.dataset(REPO).files
    tables = [name for name in files if name.endswith(".parquet")]
    full = {record.id: record.to_row() for record in open_folder(folders["mixed"], "candidates")}
    got = [row for name in tables for row in rows(files[name])]
    assert len(got) == len(full)
    assert {row["dataset"] for row in got} == {"phantom", "imagenome"}
    for row, (row_id, original) in zip(got, full.items(), strict=True):
        assert "image" not in row
        if row["dataset"] == "phantom":
            assert row == original
        else:
            assert all(row[column] is None for column in WITHHELD)
            assert row["id"] == masked_id(row_id)
            for column in ("image_id", "patient_id", "width", "height", "answer"):
                assert row[column] == original[column]
    secrets = {r["attribute"] for r in full.values() if r["dataset"] == "imagenome"}
    secrets -= {r["attribute"] for r in full.values() if r["dataset"] == "phantom"}
    assert secrets
    for name in (*tables, "build.json"):
        text = files[name].decode("latin-1")
        assert not any(secret in text for secret in secrets), name
        assert b"\x89PNG" not in files[name]


def test_ids_only_copy_keeps_the_fingerprint_and_loads(folders: dict[str, Path], tmp_path: Path) -> None:
    record = ids_only_copy(folders["mixed"], tmp_path / "copy")
    copy = open_folder(tmp_path / "copy", "candidates")
    assert copy.fingerprint == open_folder(folders["mixed"], "candidates").fingerprint
    assert "ids only" in (tmp_path / "copy" / "README.md").read_text()
    assert record["configs"]["candidates"]["ids_only"]["of"] == ["imagenome"]
    closed = [name == "imagenome" for (name,) in copy.values("dataset")]
    with pytest.raises(BuildError, match="ids only"):
        _ = copy[closed.index(False)].image
    with pytest.raises(BuildError, match="withheld"):
        _ = copy[closed.index(True)]
    from datasets import load_dataset

    loaded = load_dataset(str(tmp_path / "copy"), "candidates", split="test", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == len(copy)
    assert "image" not in loaded.column_names


def test_files_of_an_earlier_upload_and_of_the_user(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    """Shards that are gone locally go from the hub; files beside the dataset are not uploaded."""
    import shutil

    mine = tmp_path / "mine"
    shutil.copytree(folders["closed"], mine)
    (mine / "notes.txt").write_text("private")
    (mine / "candidates" / "other.parquet").write_bytes(b"x")
    repository = hub.add("dataset", REPO, private=True)
    repository.revisions["main"]["candidates/test-00000-of-00009.parquet"] = b"old"
    push(hub, mine)
    assert "candidates/test-00000-of-00009.parquet" not in repository.files
    assert not any("notes" in name or "other" in name for name in repository.files)


def test_nothing_is_uploaded_unless_the_hub_confirms(hub: LocalHub, folders: dict[str, Path]) -> None:
    hub.ignore_settings = True
    with pytest.raises(PublishError, match="nothing was uploaded"):
        push(hub, folders["closed"])
    assert hub.dataset(REPO).files == {}


def test_a_damaged_folder_is_not_uploaded(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(folders["open"], damaged)
    (table,) = (damaged / "candidates").iterdir()
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 255
    table.write_bytes(data)
    with pytest.raises(BuildError, match="checksum"):
        push(hub, damaged)
    with pytest.raises(BuildError):
        push(hub, tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize(("status", "remedy"), [(401, "hf auth login"), (403, "organisation")])
def test_refusals_of_the_hub(hub: LocalHub, folders: dict[str, Path], status: int, remedy: str) -> None:
    hub.failures.append(("POST", "/api/repos/create", status))
    with pytest.raises(PublishError, match=remedy) as caught:
        push(hub, folders["open"])
    assert caught.value.where == REPO


def test_a_wrong_token(hub: LocalHub, folders: dict[str, Path]) -> None:
    with pytest.raises(PublishError, match="hf auth login"):
        publish(folders["open"], REPO, endpoint=hub.url, token="hf_wrong")
    assert hub.repositories == {}


def test_no_hub(monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> None:
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE"):
        publish(folders["open"], REPO, token="hf_x")  # the suite is offline
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(PublishError, match="connection"):
        publish(folders["open"], REPO, endpoint="http://127.0.0.1:9", token="hf_x")


@pytest.mark.parametrize("repo", ["name", "a/b/c", "../x", "lab/a b", "lab/..", "/x", "lab/--x"])
def test_repository_names(folders: dict[str, Path], repo: str) -> None:
    with pytest.raises(PublishError, match="ORG/NAME"):
        publish(folders["open"], repo)


def test_command(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "medground_bench", "push", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    refused = run(str(folders["closed"]), "--repo", REPO, "--public")
    assert refused.returncode == 1
    assert "Credentialed" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = run(str(folders["closed"]), "--repo", REPO)
    assert done.returncode == 0, done.stderr
    assert "private, gated" in done.stdout
    assert "signed" in done.stderr
    assert hub.dataset(REPO).private
    ids = run(str(folders["closed"]), "--repo", "lab/ids", "--ids-only", "--public")
    assert ids.returncode == 0, ids.stderr
    assert not hub.dataset("lab/ids").private


@pytest.mark.heavy
def test_load_dataset_from_the_hub(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    """What was pushed opens by its repository name, streamed and whole."""
    push(hub, folders["mixed"])
    code = """if True:
        from datasets import load_dataset
        stream = load_dataset("lab/medground-bench", "candidates", split="test", streaming=True)
        first = next(iter(stream))
        whole = load_dataset("lab/medground-bench", "candidates", split="test")
        print(len(whole), first["image"].size, first["id"] == whole[0]["id"])
    """
    environment = {**os.environ, **hub.environment(), "HF_HOME": str(tmp_path), "HF_DATASETS_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == f"{len(open_folder(folders['mixed']))} (112, 112) True"
