"""The dataset card of a folder: ``dataset_card.md`` with the configs, counts and gaps of what was really built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from medground_bench.core.errors import BuildError

__all__ = ["COUNTS_MARK", "card_template", "render_card"]

COUNTS_MARK = "<!-- counts -->"
"""Where the card says how many rows there are; replaced by the tables of the folder."""


def card_template() -> str:
    """Text of ``dataset_card.md``: the copy in the installed package, else that of the checkout.

    Raises
    ------
    BuildError
        If neither is there (a broken installation).
    """
    here = Path(__file__).resolve().parents[1]
    for path in (here / "_dataset_card.md", here.parent / "dataset_card.md"):
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise BuildError("the dataset card is missing", where=here, remedy="reinstall medground-bench")


def render_card(record: dict[str, Any], template: str | None = None) -> str:
    """The README.md of a folder with this build record.

    The YAML front matter of the template gains ``configs`` (which file belongs to which config), ``dataset_info`` and
    ``size_categories``; the mark ``<!-- counts -->`` becomes tables of rows and of everything left out.

    Raises
    ------
    BuildError
        If the template has no front matter or no mark.
    """
    text = template if template is not None else card_template()
    front, mark, body = text.removeprefix("---\n").partition("\n---\n")
    if not (text.startswith("---\n") and mark and COUNTS_MARK in body):
        raise BuildError(
            "the dataset card cannot be filled in",
            where="dataset_card.md",
            expected=f"YAML front matter between lines of '---', and the mark {COUNTS_MARK} in the text",
        )
    header = yaml.safe_load(front) or {}
    configs = record["configs"]
    header["size_categories"] = [_size_category(sum(facts["rows"] for facts in configs.values()))]
    header["configs"] = [
        {"config_name": name, "data_files": [{"split": "test", "path": f"{name}/test-*.parquet"}]} for name in configs
    ]
    header["dataset_info"] = [_dataset_info(name, facts) for name, facts in configs.items()]
    filled = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{filled}---\n{body.replace(COUNTS_MARK, _counts(configs))}"


def _dataset_info(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    size = sum(file["bytes"] for file in facts["files"].values())
    return {
        "config_name": name,
        "splits": [{"name": "test", "num_bytes": size, "num_examples": facts["rows"]}],
        "download_size": size,
        "dataset_size": size,
    }


def _size_category(rows: int) -> str:
    for limit, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if rows < limit:
            return name
    return "100K<n<1M"


def _counts(configs: dict[str, Any]) -> str:
    parts = []
    for name, facts in configs.items():
        parts.append(f"**`{name}`**: {facts['rows']:,} rows, {facts['images']:,} images, `{facts['fingerprint']}`")
        parts.append(_table(facts["counts"]))
        gaps = {
            "left out because an image or source was missing": facts["missing"],
            "problems of annotation rows": facts["broken"],
            "boxes cut to their image": facts["clipped"],
        }
        parts += [f"{len(listing):,} {what} (listed in `build.json`)." for what, listing in gaps.items() if listing]
        parts += facts["notes"]
    return "\n\n".join(parts)


def _table(counts: list[dict[str, Any]]) -> str:
    """Rows by LVLM and source, in their order."""
    datasets = list(dict.fromkeys(c["dataset"] for c in counts))
    models = list(dict.fromkeys(c["model"] for c in counts))
    rows = {(c["model"], c["dataset"]): c["rows"] for c in counts}
    lines = ["| LVLM | " + " | ".join(datasets) + " | all |", "| --- |" + " ---: |" * (len(datasets) + 1)]
    for model in models:
        numbers = [rows.get((model, d), 0) for d in datasets]
        lines.append(f"| {model or '(candidates)'} | " + " | ".join(f"{n:,}" for n in [*numbers, sum(numbers)]) + " |")
    if len(models) > 1:
        totals = [sum(rows.get((m, d), 0) for m in models) for d in datasets]
        lines.append("| all | " + " | ".join(f"{n:,}" for n in [*totals, sum(totals)]) + " |")
    return "\n".join(lines)
