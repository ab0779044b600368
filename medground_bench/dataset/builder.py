"""The ``datasets`` builder: source folders (and records) -> a dataset with embedded images.

It works as a class with any ``datasets`` from 3.6 on, and behind ``builder_scripts/medground_bench.py`` as a loading
script for ``datasets<4``::

    builder = MedGroundBench("candidates", sources={"nih_cxr14": "NIH"}, dataset_name="medground_bench")
    builder.download_and_prepare(num_proc=2)
    dataset = builder.as_dataset(split="test")
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from packaging.version import Version

from medground_bench.core.errors import FileError, MedGroundError
from medground_bench.core.processes import end_with_parent
from medground_bench.core.versions import VERSION
from medground_bench.dataset.columns import features
from medground_bench.dataset.encode import RowEncoder, count_row
from medground_bench.dataset.plan import CONFIGS, BuildSettings, Item, Plan, make_plan
from medground_bench.dataset.released import RELEASED
from medground_bench.sources import open_source

__all__ = ["MedGroundBench", "MedGroundBenchConfig", "causes", "user_error"]


@dataclass
class MedGroundBenchConfig(datasets.BuilderConfig):
    """What to build; the fields are those of :class:`medground_bench.dataset.plan.BuildSettings`.

    ``progress`` names a counter file (one byte per finished row) and does not change the dataset.
    """

    sources: Mapping[str, str] = field(default_factory=dict)
    records: str | None = None
    lvlms: Sequence[str] = ()
    scaling: str = "minmax"
    max_side: int | None = None
    allow_missing: bool = False
    allow_other_records: bool = False
    clip_boxes: bool = False
    progress: str | None = None

    def settings(self) -> BuildSettings:
        """The settings of the build."""
        return BuildSettings(
            config=self.name,
            sources={name: str(root) for name, root in self.sources.items()},
            records=None if self.records is None else str(self.records),
            lvlms=tuple(self.lvlms),
            scaling=self.scaling,  # type: ignore[arg-type]
            max_side=self.max_side,
            allow_missing=self.allow_missing,
            allow_other_records=self.allow_other_records,
            clip_boxes=self.clip_boxes,
        )

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """Name of the cache folder: it changes with the contents of the annotation files and records."""
        kwargs = {k: v for k, v in config_kwargs.items() if k != "progress"}
        if self.sources and self.progress is None:  # a folder build, which counts, has a cache of its own
            kwargs["annotations"] = _annotations(self.settings())
        result: str = super().create_config_id(kwargs, custom_features)
        return result


def _annotations(settings: BuildSettings) -> str:
    """Digest of the annotation files and records a build reads."""
    digest = hashlib.sha256()
    for name, root in sorted(settings.sources.items()):
        for file in open_source(name, root).files:
            if file.is_file():
                digest.update(file.read_bytes())
    records = Path(settings.records or "")
    names = [f.name for f in RELEASED.values()]
    for path in [records] if records.is_file() else sorted(records.glob("*.json*")) if settings.records else []:
        if path == records or path.name in names or path.suffix == ".jsonl":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _three_part(version: str) -> str:
    """``x.y.z``, all that ``datasets`` accepts."""
    parts = Version(version)
    return f"{parts.major}.{parts.minor}.{parts.micro}"


class MedGroundBench(datasets.GeneratorBasedBuilder):
    """MedGround-Bench: configs ``direct``, ``reason`` and ``candidates``, one split ``test``.

    Pass ``sources={"name": "folder"}`` and, for ``direct`` and ``reason``, ``records="file or folder"``.
    """

    VERSION = datasets.Version(_three_part(VERSION))
    BUILDER_CONFIG_CLASS = MedGroundBenchConfig
    BUILDER_CONFIGS = [MedGroundBenchConfig(name=name) for name in CONFIGS]  # noqa: RUF012 - the library's own contract
    DEFAULT_WRITER_BATCH_SIZE = 16  # rows hold images: this bounds the memory

    plan: Plan | None = None

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description="Causally verified visual evidence for chest X-ray question answering.",
            features=features(),
            homepage="https://github.com/gzxiong/medfocus",
            license="Each image is under the terms of its source; see the dataset card.",
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        self.plan = make_plan(self.config.settings())
        return [
            datasets.SplitGenerator(
                name=datasets.Split.TEST,
                # The list is what num_proc shards.
                gen_kwargs={"items": self.plan.items, "progress": self.config.progress},
            )
        ]

    def _prepare_split_single(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        # A worker process sends back an exception without its causes: raise the user error itself.
        _be_a_good_child()
        try:
            yield from super()._prepare_split_single(*args, **kwargs)
        except datasets.exceptions.DatasetGenerationError as error:
            found = user_error(error)
            if found is None:
                raise
            raise found from found.__cause__  # not from this error, which was itself raised from it

    def _generate_examples(self, items: list[Item], progress: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        encoder = RowEncoder(self.config.scaling, self.config.max_side)
        for item in items:
            yield item.columns["id"], encoder.row(item)
            count_row(progress, encoder.notes)


def _be_a_good_child() -> None:
    """In a worker process: end with the parent, and leave Ctrl-C to it, without a traceback from each."""
    import signal
    import sys
    from importlib import import_module

    if import_module("multiprocess").parent_process() is not None:
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.unraisablehook = _without_abandoned_generators


def _without_abandoned_generators(unraisable: Any) -> None:
    """Report what Python cannot raise, but for the library's generator when the parent ends this worker inside it."""
    import sys

    if not (isinstance(unraisable.exc_value, RuntimeError) and "GeneratorExit" in str(unraisable.exc_value)):
        sys.__unraisablehook__(unraisable)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what led to it, each once (such chains may run in circles)."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # What the libraries raise while they clean up only has a context; a context elsewhere may be long dealt with.
        library = type(error).__module__.partition(".")[0] in ("datasets", "pyarrow", "multiprocess")
        error = error.__cause__ or (error.__context__ if library else None)


def user_error(error: BaseException, where: Path | None = None) -> MedGroundError | None:
    """The user error behind what ``datasets`` raised, if there is one; ``where`` it wrote, if the error does not say.

    An :class:`OSError` is one, with a number or, as ``datasets`` raises it where there is too little space, without.
    """
    for cause in causes(error):
        if isinstance(cause, MedGroundError):
            if isinstance(cause, FileError) and cause.where is None and where is not None:
                cause.where = str(where)
            return cause
        if isinstance(cause, OSError):
            found = FileError.of(cause, where)
            found.__cause__ = cause
            return found
    return None
