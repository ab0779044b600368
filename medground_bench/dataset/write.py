"""Building the dataset folder: the builder's rows as sharded parquet, the card, and the build record.

Everything is written beside the folder and moved into place at the end; the other configs of the folder are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import BuildError
from medground_bench.core.files import (
    atomic_folder,
    cache_folder,
    file_lock,
    scratch_folder,
    sweep,
    target_of,
)
from medground_bench.core.processes import children_end_with_this_process
from medground_bench.core.versions import software_versions
from medground_bench.dataset.card import render_card
from medground_bench.dataset.columns import IMAGE_COLUMN, fingerprint, parquet_metadata
from medground_bench.dataset.encode import read_notes
from medground_bench.dataset.folder import BUILD_RECORD, FORMAT, name_by_content, read_build_record

if TYPE_CHECKING:
    from medground_bench.dataset.plan import BuildSettings, Plan

__all__ = ["SHARD_BYTES", "build_folder"]

SHARD_BYTES = 400_000_000
ROW_GROUP_BYTES = 16_000_000
ROW_GROUP_ROWS = 100
"""Small row groups: a reader that wants one image reads little, and streaming starts at once."""

Progress = Callable[[int, int, str], None]


def build_folder(
    settings: BuildSettings,
    out: str | Path,
    *,
    num_proc: int = 1,
    progress: Progress | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Path, Plan]:
    """Build one config into a dataset folder; other configs already there are kept.

    Parameters
    ----------
    settings : BuildSettings
        What to build.
    out : path
        The folder. It is replaced whole at the end, or left as it was.
    num_proc : int
        Processes that decode and encode images.
    progress : callable, optional
        Called as ``progress(done, total, what)``.
    shard_bytes : int
        Size from which a new parquet file is begun.

    Returns
    -------
    Path, Plan
        The folder, and what went in and was left out.

    Raises
    ------
    MedGroundError
        If anything stops the build; the folder is then what it was before.
    """
    out = target_of(Path(out).expanduser())
    settings.check()
    sweep(out.parent)
    _check_out(out)
    try:
        with scratch_folder(out) as work:
            plan, arrow = _materialise(settings, work, num_proc, progress)
            files = _write_parquet(arrow, work / settings.config, shard_bytes)
            record = _config_record(plan, work, files)
            _install(out, work, settings.config, record)
    except BaseException as error:
        from medground_bench.dataset.builder import causes, user_error

        # Ctrl-C may come as the timeout that datasets raises while it ends its processes.
        if any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
            raise KeyboardInterrupt from None
        found = user_error(error, out)
        if found is not None and found is not error:
            raise found from found.__cause__
        raise
    return out, plan


def _check_out(out: Path) -> None:
    """Refuse to replace a folder that is not one of ours, and a name that ``load_dataset`` takes for a pattern."""
    pattern = sorted(set("*?[]") & set(str(out)))
    if pattern:
        raise BuildError(
            f"the path has the character(s) {' '.join(pattern)}, which load_dataset takes for a pattern",
            where=out,
            expected="a path without any of * ? [ ]",
            remedy="build into another folder",
        )
    if out.is_dir() and any(out.iterdir()):
        read_build_record(out)
    elif out.exists() and not out.is_dir():
        raise BuildError("this is a file", where=out, expected="a folder to write to, or a new name")


# --- rows


def _materialise(
    settings: BuildSettings, work: Path, num_proc: int, progress: Progress | None
) -> tuple[Plan, list[Path]]:
    """Run the builder; the plan and the arrow files it wrote, in order."""
    import datasets

    from medground_bench.dataset.builder import MedGroundBench

    counter = work / "progress"
    counter.touch()
    builder = MedGroundBench(
        config_name=settings.config,
        cache_dir=str(work / "cache"),
        dataset_name="medground_bench",
        sources=dict(settings.sources),
        records=settings.records,
        lvlms=list(settings.lvlms),
        scaling=settings.scaling,
        max_side=settings.max_side,
        allow_missing=settings.allow_missing,
        allow_other_records=settings.allow_other_records,
        clip_boxes=settings.clip_boxes,
        progress=str(counter),
    )
    with _quiet(datasets), _watch(counter, builder, progress), children_end_with_this_process():
        builder.download_and_prepare(str(work / "arrow"), num_proc=num_proc if num_proc > 1 else None)
    assert builder.plan is not None  # set by _split_generators
    builder.plan.image_notes = read_notes(counter)
    return builder.plan, sorted((work / "arrow").glob("*.arrow"))


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Our own progress bar instead of that of ``datasets``."""
    before = datasets.utils.logging.get_verbosity()
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(before)
        if shown:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _watch(counter: Path, builder: Any, progress: Progress | None) -> Iterator[None]:
    """Report the size of the counter file, to which every process adds a byte per row."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    def report() -> None:
        while not stop.wait(0.2):
            if builder.plan is not None:
                progress(counter.stat().st_size, len(builder.plan.items), builder.config.name)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


# --- parquet


def _write_parquet(arrow: list[Path], folder: Path, shard_bytes: int) -> list[Path]:
    """Arrow files -> parquet files, in small row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    paths: list[Path] = []
    writer: Any = None
    written = 0
    try:
        for table in _row_groups(arrow):
            if writer is None or written >= shard_bytes:
                if writer is not None:
                    writer.close()
                paths.append(folder / f"{len(paths)}.parquet")
                schema = table.schema.with_metadata(parquet_metadata())
                writer = pq.ParquetWriter(paths[-1], schema, **_parquet_options(schema))
                written = 0
            writer.write_table(pa.table(table.columns, schema=schema), row_group_size=table.num_rows)
            written += table.nbytes
    finally:
        if writer is not None:
            writer.close()
    return paths


def _row_groups(arrow: list[Path]) -> Iterator[Any]:
    """Tables of one row group each; only one is in memory. An arrow file is removed once it is read."""
    import pyarrow as pa

    for path in arrow:
        pending: list[Any] = []
        # Not memory-mapped: mapped pages of a large file would count as memory of this process.
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            for batch in reader:
                pending.append(batch)
                if sum(b.nbytes for b in pending) >= ROW_GROUP_BYTES or sum(map(len, pending)) >= ROW_GROUP_ROWS:
                    yield pa.Table.from_batches(pending)
                    pending = []
        if pending:
            yield pa.Table.from_batches(pending)
        path.unlink()


def _parquet_options(schema: Any) -> dict[str, Any]:
    """Compress text, not PNG; no statistics over image bytes."""
    image = [f"{IMAGE_COLUMN}.bytes", f"{IMAGE_COLUMN}.path"]
    lists = {"boxes": "boxes.list.element.list.element", "regions": "regions.list.element"}
    plain = [n for n in schema.names if n != IMAGE_COLUMN and n not in lists]
    leaves = [*plain, *lists.values(), *image]
    return {
        "compression": {**dict.fromkeys(leaves, "zstd"), image[0]: "none"},
        "use_dictionary": plain,
        "write_statistics": plain,
    }


# --- record and card


def _config_record(plan: Plan, work: Path, files: list[Path]) -> dict[str, Any]:
    import pyarrow.parquet as pq

    settings = plan.settings
    rows = Counter((item.columns["model"] or "", item.columns["dataset"]) for item in plan.items)
    written = sum(pq.read_metadata(f).num_rows for f in files)
    if written != len(plan.items):
        raise BuildError(f"{written} rows were written instead of {len(plan.items)}", where=work)
    columns = [n for n in pq.read_schema(files[0]).names if n != IMAGE_COLUMN]

    def stream() -> Iterator[dict[str, Any]]:
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=512, columns=columns):
                yield from batch.to_pylist()

    return {
        "rows": len(plan.items),
        "images": plan.images,
        "fingerprint": fingerprint(stream()),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": software_versions(),
        "settings": {
            "scaling": settings.scaling,
            "max_side": settings.max_side,
            "lvlms": list(settings.lvlms),
            "allow_missing": settings.allow_missing,
            "clip_boxes": settings.clip_boxes,
        },
        "counts": [{"model": m or None, "dataset": d, "rows": n} for (m, d), n in rows.items()],
        "sources": plan.sources,
        "records": plan.records,
        "missing": _no_paths(plan, plan.missing),
        "broken": _no_paths(plan, plan.broken),
        "clipped": _no_paths(plan, plan.clipped),
        "notes": plan.notes,
        "image_notes": plan.image_notes,
        "files": name_by_content(files),
    }


def _no_paths(plan: Plan, messages: list[str]) -> list[str]:
    """Messages with the source's key in place of where it lies on this machine: the record may be published."""
    out = []
    for message in messages:
        for name, root in plan.settings.sources.items():
            for form in dict.fromkeys((str(Path(root).expanduser().resolve()), str(Path(root).expanduser()))):
                message = message.replace(form, f"<{name}>")
        out.append(message)
    return out


def _install(out: Path, work: Path, config: str, entry: dict[str, Any]) -> None:
    """Put the config into the folder beside the configs that are there, all at once."""
    # Two builds that end together keep both configs. The lock lies in the user's cache: the folder itself is replaced,
    # and beside it nothing of ours should stay.
    lock = cache_folder("locks") / f"{hashlib.sha256(os.fsencode(out)).hexdigest()[:32]}.lock"
    with file_lock(lock, wait=True), atomic_folder(out) as staging:
        configs: dict[str, Any] = {}
        if out.is_dir() and any(out.iterdir()):
            old = read_build_record(out)
            configs = {name: facts for name, facts in old["configs"].items() if name != config}
            _keep(out, staging, config)
        (work / config).replace(staging / config)
        configs[config] = entry
        record = {"format": FORMAT, "versions": entry["versions"], "configs": configs}
        (staging / BUILD_RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (staging / "README.md").write_text(render_card(record), encoding="utf-8")


def _keep(out: Path, staging: Path, config: str) -> None:
    """Carry over what the folder holds beside the config that is replaced: other configs, a user's own files."""
    replaced = {out / config, out / BUILD_RECORD, out / "README.md"}
    for path in out.rglob("*"):
        if path.is_dir() or path in replaced or out / config in path.parents:
            continue
        target = staging / path.relative_to(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # no hard links on this file system
            shutil.copy2(path, target)
