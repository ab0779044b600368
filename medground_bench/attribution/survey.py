"""What of this project works on which family, found out on small models of the real classes: the table of the docs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medground_bench.attribution.method import available_methods, get_method
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import question
from medground_bench.lvlm.loading import load_lvlm

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

__all__ = ["SIZES", "SurveyRow", "markdown", "survey"]

SIZES = ((224, 224), (512, 640))
"""Frames, (width, height)."""

_QUESTION, _RESPONSE = question("lung opacity", "reason"), "Yes, there is."
_LEFT_OUT = frozenset(["calibration", "two_towers", "detector", "segmenter", "localizer", "references", "generation"])
_QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 2, "max_steps": 2},
    "extremal_perturbation": {"areas": (0.1,), "iterations": 2},
    "igos_plus": {"points": 2, "iterations": 2},
    "igos_pp": {"points": 2, "iterations": 2},
    "guided_ig": {"steps": 2},
    "blur_ig": {"steps": 2},
    "samp": {"steps": 2},
    "xrai": {"steps": 1, "scales": (250.0,)},
    "smoothgrad": {"samples": 2},
    "tis": {"budget": 8},
    "smdl": {"regions": "tiles:2x2"},
}
"""Whether a method works does not depend on how often it repeats itself."""


@dataclass
class SurveyRow:
    """One family.

    Attributes
    ----------
    family : str
        ``model_type``.
    loads : bool
        From a folder, as ``load_lvlm`` does it.
    score_error : float
        Largest difference between the scores and a plain forward over the sizes, nats.
    measured : str
        Tokens with a measured place per size, or why there is none.
    explicit_error : float or None
        Largest difference between explicit and measured edges, as a share of the smallest token; None without an
        explicit adapter.
    works, refuses : list of str
        White-box methods that give a map, and those that say why they do not.
    """

    family: str
    loads: bool = False
    score_error: float = float("nan")
    measured: str = ""
    explicit_error: float | None = None
    works: list[str] = field(default_factory=list)
    refuses: list[str] = field(default_factory=list)


def survey(
    families: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]] = SIZES,
    methods: Collection[str] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Iterator[SurveyRow]:
    """Try families that :mod:`medground_bench.lvlm.testing` can build.

    Parameters
    ----------
    families : sequence of str
        ``model_type`` of each.
    sizes : sequence of (int, int)
        Frames to score and measure, (width, height); the methods run on the first.
    methods : collection of str, optional
        White-box methods to run; all without it.
    progress : callable, optional
        Called with (done, total, family).
    """
    import medground_bench.lvlm.testing as testing

    builders = {"qwen2_5_vl": testing.tiny_qwen_parts, "gemma3": testing.tiny_gemma_parts}
    for k, family in enumerate(families):
        if progress is not None:
            progress(k, len(families), family)
        parts = builders[family]() if family in builders else testing.generic_parts(family)
        with tempfile.TemporaryDirectory() as scratch:
            lvlm = load_lvlm(testing.save_parts(*parts, Path(scratch)), device="cpu")
        yield _row(family, lvlm, sizes, methods)


def _row(family: str, lvlm: Lvlm, sizes: Sequence[tuple[int, int]], methods: Collection[str] | None) -> SurveyRow:
    from medground_bench.lvlm.geometry import measure_tokens

    row = SurveyRow(family, loads=lvlm.family == family)
    errors, seen, apart = [], [], []
    for size in sizes:
        episode = lvlm.prepare(_noise(size), _QUESTION, _RESPONSE, side=None)
        errors.append(np.abs(lvlm.log_probs(episode, [episode.frame])[0] - _plain_scores(lvlm, size)).max())
        measured = measure_tokens(lvlm, size, step=4 if size[0] < 300 else 8)
        if measured is None:
            seen.append("none")
            continue
        places = [box is not None for box in measured.boxes]
        seen.append(f"{sum(places)} of {len(places)}")
        explicit = episode.grid
        if not callable(episode.geometry):
            same = places == [box is not None for box in explicit.boxes]
            a, b = (np.array([box for box in one.boxes if box]) for one in (explicit, measured))
            apart.append(float((np.abs(a - b) / np.tile((a[:, 2:] - a[:, :2]).min(0), 2)).max()) if same else np.inf)
    row.score_error = float(max(errors))
    row.measured = ", ".join(seen)
    row.explicit_error = max(apart) if apart else None
    episode = lvlm.prepare(_noise(sizes[0]), _QUESTION, _RESPONSE, side=None)
    for name in available_methods():
        if methods is not None and name not in methods:
            continue
        method = get_method(name)
        if "white_box" not in method.needs or _LEFT_OUT & set(method.needs):
            continue
        try:
            found = method.run(lvlm, episode, method.make_parameters(_QUICK.get(name)))
            (row.refuses if found.heatmap is None else row.works).append(name)
        except MedGroundError:
            row.refuses.append(name)
    return row


def _noise(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8))


def _plain_scores(lvlm: Lvlm, size: tuple[int, int]) -> np.ndarray:
    """The obvious way: chat template and processor for one image, full logits, read off the response."""
    import torch

    content = [{"type": "image", "image": _noise(size).convert("RGB")}, {"type": "text", "text": _QUESTION}]
    inputs: Any = lvlm.processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = lvlm.processor.tokenizer(_RESPONSE, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            kind = 1 if lvlm.family == "paligemma" else 0  # what follows the prefix
            inputs[name] = torch.cat([inputs[name], torch.full_like(ids, kind, dtype=inputs[name].dtype)], dim=1)
    taken = {name: value for name, value in inputs.items() if name not in ("labels", "num_crops")}
    with torch.no_grad():
        logits = lvlm.model(**taken).logits[0].float().log_softmax(-1)
    return np.array([float(logits[start - 1 + t, i]) for t, i in enumerate(ids[0].tolist())])


def markdown(rows: Sequence[SurveyRow]) -> str:
    """The table of the docs."""
    names = sorted({name for row in rows for name in (*row.works, *row.refuses)})
    lines = [
        "| family | loads | scores equal a plain forward | places measured (square, 512 x 640) | explicit agrees | "
        "white-box methods |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        scores = _power(row.score_error)
        explicit = "-" if row.explicit_error is None else f"to {max(1, ceil(100 * row.explicit_error))} % of a token"
        lost = [name for name in names if name in row.refuses]
        works = (
            f"all {len(names)}" if not lost else f"{len(names) - len(lost)}; not " + ", ".join(f"`{n}`" for n in lost)
        )
        yes = "yes" if row.loads else "no"
        lines.append(f"| `{row.family}` | {yes} | {scores} | {row.measured} | {explicit} | {works} |")
    return "\n".join(lines) + "\n"


def _power(error: float) -> str:
    """The bound of a table: 1e-5 and smaller count as that, so that the last bits of a machine do not show."""
    return next(
        (f"to {text}" for bound, text in ((1e-5, "1e-5"), (1e-4, "1e-4"), (1e-3, "1e-3")) if error <= bound), "no"
    )
