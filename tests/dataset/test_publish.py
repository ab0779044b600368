"""Publishing, against a hub on this machine: what goes up, and above all what does not."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medground_bench.core.errors import BuildError, PublishError
from medground_bench.core.files import sha256_of
from medground_bench.core.schema import candidate_id, masked_id
from medground_bench.dataset.columns import fingerprint
from medground_bench.dataset.folder import open_folder, read_build_record
from medground_bench.dataset.masking import KEY_ENDING, builder_key, dataset_key
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.publish import JOINING_ENDING, credentialed_sources, ids_only_copy, publish
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
    assert [row for row in got if row["dataset"] == "phantom"] == [
        original for original in full.values() if original["dataset"] == "phantom"
    ]
    key = builder_key(folders["mixed"])
    closed = [row for row in got if row["dataset"] == "imagenome"]
    assert [row["id"] for row in closed] == sorted(
        masked_id(i, key) for i, original in full.items() if original["dataset"] == "imagenome"
    ), "their order says nothing"
    for row in closed:
        assert {name for name, value in row.items() if value is not None} == {"id", "dataset", "answer"}
    secrets = {r["attribute"] for r in full.values() if r["dataset"] == "imagenome"}
    secrets -= {r["attribute"] for r in full.values() if r["dataset"] == "phantom"}
    assert secrets
    for name in (*tables, "build.json"):
        text = files[name].decode("latin-1")
        assert not any(secret in text for secret in secrets), name
        assert b"\x89PNG" not in files[name]


def test_the_dictionary_attack_on_an_ids_only_copy_recovers_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    """Every image and finding is known to the attacker, the whole publication, and the code; the key is not."""
    record = ids_only_copy(folders["mixed"], tmp_path / "copy")
    published = b"".join(p.read_bytes() for p in sorted((tmp_path / "copy").rglob("*")) if p.is_file())
    shown = {i for i, d in open_folder(tmp_path / "copy", "candidates").values("id", "dataset") if d == "imagenome"}
    everything = list(open_folder(folders["mixed"], "candidates"))
    images = {r.image_id for r in everything if r.dataset == "imagenome"}
    words = {r.attribute for r in everything}
    guesses = [candidate_id("imagenome", image, word) for image in images for word in words]
    stated = record["configs"]["candidates"]["fingerprint"]
    for key in (b"", stated.encode(), bytes.fromhex(stated[7:]), dataset_key(open_folder(folders["mixed"]))):
        assert not {masked_id(guess, key) for guess in guesses} & shown
    assert not {"hmac:" + hashlib.sha256(guess.encode()).hexdigest() for guess in guesses} & shown
    key = builder_key(folders["mixed"])
    assert {masked_id(guess, key) for guess in guesses} >= shown, "the guesses are right: only the key lacks"
    assert not any(secret in published for secret in (key, key.hex().encode(), *(i.encode() for i in images)))


def test_the_key_and_the_joining_file_stay_with_the_builder(folders: dict[str, Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folders["closed"], mine)
    ids_only_copy(mine, tmp_path / "copy")
    key, joining = (mine.with_name(mine.name + ending) for ending in (KEY_ENDING, JOINING_ENDING))
    for path in (key, joining):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not list((tmp_path / "copy").rglob(path.name))
    joined = {row["masked"]: row["id"] for row in map(json.loads, joining.read_text().splitlines())}
    assert set(joined.values()) == {r.id for r in open_folder(mine)}
    assert set(joined) == {i for (i,) in open_folder(tmp_path / "copy").values("id")}
    before = key.read_text()
    ids_only_copy(mine, tmp_path / "again")
    assert key.read_text() == before
    key.chmod(0o644)
    with pytest.raises(PublishError, match="others can read it"):
        builder_key(mine)
    key.unlink()
    key.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match="link"):
        builder_key(mine)


def test_ids_only_writes_what_is_allowed_and_nothing_else(folders: dict[str, Path], tmp_path: Path) -> None:
    """Another column, parquet metadata, words in the record and card, files beside: none of it is copied."""
    mine, secret = tmp_path / "mine", "secret finding"
    shutil.copytree(folders["closed"], mine)
    build = json.loads((mine / "build.json").read_text())
    entry = build["configs"]["candidates"]
    (name,) = entry["files"]
    table = pq.read_table(mine / name)
    table = table.append_column("note", [[secret] * len(table)]).replace_schema_metadata({"hidden": secret})
    pq.write_table(table, mine / name)
    entry["files"] = {name: {"bytes": (mine / name).stat().st_size, "sha256": sha256_of(mine / name)}}
    for place in ("notes", "missing", "broken"):
        entry[place] = [secret]
    entry["sources"], entry["extra"], build["extra"] = {"imagenome": {"path": secret}}, secret, secret
    (mine / "build.json").write_text(json.dumps(build))
    (mine / "README.md").write_text(secret)
    (mine / f"{secret}.txt").write_text(secret)
    ids_only_copy(mine, tmp_path / "copy")
    files = [p for p in (tmp_path / "copy").rglob("*") if p.is_file()]
    assert len(files) == 3
    for path in files:
        assert secret.encode() not in path.read_bytes()
        assert secret not in str(path)
    assert secret not in str(pq.read_schema(next(p for p in files if p.suffix == ".parquet")))


@pytest.mark.parametrize("name", ["*", "candidates/*.parquet", "candidates/../x.parquet", "notes.txt", "/etc/passwd"])
def test_patterns_and_strange_names_are_not_uploaded(
    hub: LocalHub, folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folders["closed"], mine)
    build = json.loads((mine / "build.json").read_text())
    files = build["configs"]["candidates"]["files"]
    (old,) = files
    target = mine / name
    if not name.startswith("/"):
        target.parent.mkdir(exist_ok=True)
        (mine / old).rename(target)
        files[name] = files.pop(old)
    else:
        files[name] = {"bytes": target.stat().st_size, "sha256": sha256_of(target)}
    (mine / "build.json").write_text(json.dumps(build))
    with pytest.raises((PublishError, BuildError)):
        push(hub, mine)
    assert not any(r.path.endswith("/commit/main") for r in hub.requests)


def test_links_are_not_followed(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(folders["closed"], mine)
    (mine / "README.md").unlink()
    (tmp_path / "private.md").write_text("private")
    (mine / "README.md").symlink_to(tmp_path / "private.md")
    with pytest.raises(PublishError, match="link"):
        push(hub, mine)
    assert hub.requests == []


def test_a_row_that_contradicts_its_id_is_not_pushed(hub: LocalHub, folders: dict[str, Path], tmp_path: Path) -> None:
    """Rows of a credentialed source, relabelled as those of an open one, with a record that agrees."""
    mine = tmp_path / "mine"
    shutil.copytree(folders["closed"], mine)
    build = json.loads((mine / "build.json").read_text())
    entry = build["configs"]["candidates"]
    (name,) = entry["files"]
    table = pq.read_table(mine / name)
    place = table.schema.get_field_index("dataset")
    table = table.set_column(place, "dataset", [["phantom"] * len(table)])
    pq.write_table(table, mine / name)
    entry["files"] = {name: {"bytes": (mine / name).stat().st_size, "sha256": sha256_of(mine / name)}}
    entry["fingerprint"] = fingerprint(table.drop_columns(["image"]).to_pylist())
    (mine / "build.json").write_text(json.dumps(build))
    with pytest.raises(PublishError, match="does not follow"):
        push(hub, mine, public=True)
    assert hub.requests == []


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
