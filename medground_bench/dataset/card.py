"""The dataset card of a folder: ``dataset_card.md`` with the configs, counts and gaps of what was really built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from medground_bench.core.errors import BuildError
from medground_bench.dataset.columns import card_features
from medground_bench.dataset.plan import CONFIGS
from medground_bench.sources import is_credentialed, source_info, source_names

__all__ = ["COUNTS_MARK", "card_template", "citation", "render_card"]

COUNTS_MARK = "<!-- counts -->"
"""Where the card says how many rows there are; replaced by the tables of the folder."""

_CREDENTIALED = re.compile("<!-- credentialed -->.*?<!-- /credentialed -->\n?", re.DOTALL)
_MARKS = re.compile("<!-- /?credentialed -->\n?")


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


def citation() -> str:
    """BibTeX of the benchmark: the first entry of the card."""
    found = re.search(r"```bibtex\n(@.*?\n}\n)", card_template(), re.DOTALL)
    if found is None:
        raise BuildError(
            "the dataset card has no citation", where="dataset_card.md", remedy="reinstall medground-bench"
        )
    return found[1]


def render_card(record: dict[str, Any], template: str | None = None) -> str:
    """The README.md of a folder with this build record.

    The YAML front matter of the template gains the licence, ``configs`` (which file belongs to which config),
    ``dataset_info`` with the features, and ``size_categories``; the mark ``<!-- counts -->`` becomes tables of rows and
    of everything left out. Of the tables of sources only the rows of the folder's own stay. A folder without
    credentialed sources loses the gate and what stands between the marks ``<!-- credentialed -->`` and
    ``<!-- /credentialed -->``.

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
    sources = list(dict.fromkeys(count["dataset"] for facts in configs.values() for count in facts["counts"]))
    if not any(map(is_credentialed, sources)):
        header = {key: value for key, value in header.items() if not key.startswith("extra_gated")}
        body = _CREDENTIALED.sub("", body)
    body = _MARKS.sub("", _without_other_sources(body, sources))
    header = {**{key: header[key] for key in ("pretty_name",) if key in header}, **_licence(sources), **header}
    header["size_categories"] = [_size_category(sum(facts["rows"] for facts in configs.values()))]
    header["configs"] = [
        {"config_name": name, "data_files": [{"split": "test", "path": _pattern(name, facts)}]}
        for name, facts in configs.items()
    ]
    first = next(name for name in CONFIGS if name in configs)  # what load_dataset opens without a name
    header["configs"][list(configs).index(first)]["default"] = True
    header["dataset_info"] = [_dataset_info(name, facts) for name, facts in configs.items()]
    filled = yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=100)
    return f"---\n{filled}---\n{body.replace(COUNTS_MARK, _counts(configs))}"


def _dataset_info(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    size = sum(file["bytes"] for file in facts["files"].values())
    return {
        "config_name": name,
        "features": card_features(image="ids_only" not in facts),
        "splits": [{"name": "test", "num_bytes": size, "num_examples": facts["rows"]}],
        "download_size": size,
        "dataset_size": size,
    }


def _pattern(name: str, facts: dict[str, Any]) -> str:
    """Which files are a config's: with the checksum that their names share (not those of version 0.1.0)."""
    endings = {Path(file).stem.removeprefix("test-").split("-", 3)[-1] for file in facts["files"]}
    (ending,) = endings if len(endings) == 1 else ("",)
    return f"{name}/test-*-{ending}.parquet" if re.fullmatch("[0-9a-f]{16}", ending) else f"{name}/test-*.parquet"


def _licence(sources: list[str]) -> dict[str, str]:
    """What the Hub shows as the licence: that of the sources, the strictest first."""
    known = [source_info(name) for name in sources if name in source_names()]
    if len(known) == len(sources) and all(info.licence.startswith("Apache-2.0") for info in known):
        return {"license": "apache-2.0"}
    terms = sorted((info for info in known if info.url.startswith("http")), key=lambda info: not info.credentialed)
    link = {"license_link": terms[0].url} if terms else {}
    return {"license": "other", "license_name": "terms-of-the-sources", **link}


def _without_other_sources(body: str, sources: list[str]) -> str:
    """The text without the rows of tables that are about sources the folder has nothing of."""
    others = tuple(f"| `{name}`" for name in source_names() if name not in sources)
    return "".join(line for line in body.splitlines(keepends=True) if not line.lstrip().startswith(others))


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
