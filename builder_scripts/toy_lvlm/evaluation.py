"""Does a toy LVLM answer because of the finding? Accuracy and counterfactuals on unseen phantoms.

Everything here goes the long way round that any user's code would go: native image, letterbox, the saved processor,
``model.generate``, and the last yes or no of the generated text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.schema import MODES, question
from medground_bench.sources.phantom import FINDINGS, sample_phantom
from medground_bench.sources.phantom.sample import Phantom

from .data import draw_size, frame
from .text import response

__all__ = ["UNSEEN", "Tally", "answers", "evaluate", "table", "totals"]

UNSEEN = 900_000_000
"""First seed of the phantoms for evaluation: beyond every training seed."""
_TOGETHER = 8  # phantoms asked about at a time: their questions share batches


@dataclass
class Tally:
    """Outcomes for one finding in one mode; every entry is True where the model did right.

    ``flips``: answered yes to a finding that is there, the finding is removed, the answer is no. ``stays``: another
    finding is removed instead, the answer is still yes. ``placed`` (reason mode): answered yes, and the text names the
    right side and zone, word for word.
    """

    present: list[bool] = field(default_factory=list)
    absent: list[bool] = field(default_factory=list)
    flips: list[bool] = field(default_factory=list)
    stays: list[bool] = field(default_factory=list)
    placed: list[bool] = field(default_factory=list)

    @property
    def balanced(self) -> float:
        """Balanced accuracy: the mean of sensitivity and specificity (of the one there is, if only one)."""
        rates = [float(np.mean(part)) for part in (self.present, self.absent) if part]
        return float(np.mean(rates)) if rates else float("nan")

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.present + other.present,
            self.absent + other.absent,
            self.flips + other.flips,
            self.stays + other.stays,
            self.placed + other.placed,
        )


def answers(
    model: Any,
    processor: Any,
    images: Sequence[NDArray[np.uint8]],
    questions: Sequence[str],
    max_new_tokens: int = 48,
    batch: int = 40,
) -> list[str]:
    """Greedy answers to one question about each native grey image (H, W)."""
    import torch
    from PIL import Image

    out: list[str] = []
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for text in questions
    ]
    for start in range(0, len(images), batch):
        rgb = [[Image.fromarray(frame(image)).convert("RGB")] for image in images[start : start + batch]]
        inputs = processor(
            text=texts[start : start + batch],
            images=rgb,
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        out += processor.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return out


def said_yes(text: str) -> bool | None:
    """The last yes or no in a text; None where there is none."""
    words = re.findall(r"\b(yes|no)\b", text.lower())
    return words[-1] == "yes" if words else None


def evaluate(
    model: Any,
    processor: Any,
    phantoms: int = 100,
    modes: Sequence[str] = MODES,
    first_seed: int = UNSEEN,
    report: Callable[[int, int], None] | None = None,
) -> dict[tuple[str, str], Tally]:
    """Ask every question about unseen phantoms, then about their counterfactuals.

    Parameters
    ----------
    model, processor
        As loaded by ``AutoModelForImageTextToText`` and ``AutoProcessor``.
    phantoms : int
        Every second one carries the findings the phantom draws by itself, the others more of them.
    modes : sequence of {"direct", "reason"}
    first_seed : int
    report : callable, optional
        ``report(done, total)`` per phantom and mode.

    Returns
    -------
    dict
        ``{(mode, finding): Tally}``.
    """
    tallies = {(mode, name): Tally() for mode in modes for name in FINDINGS}
    total, done = phantoms * len(modes), 0
    for start in range(first_seed, first_seed + phantoms, _TOGETHER):
        drawn = [_draw(seed) for seed in range(start, min(start + _TOGETHER, first_seed + phantoms))]
        for mode in modes:
            _examine(model, processor, drawn, mode, tallies)
            done += len(drawn)
            if report:
                report(done, total)
    return tallies


def _draw(seed: int) -> Phantom:
    rng = np.random.default_rng([seed, 2])
    size = draw_size(rng)
    planted = None if seed % 2 else [name for name in FINDINGS if rng.random() < 0.5]
    return sample_phantom(seed, size=size, findings=planted)


def _examine(
    model: Any, processor: Any, phantoms: Sequence[Phantom], mode: str, tallies: dict[tuple[str, str], Tally]
) -> None:
    """All questions about some phantoms, and the counterfactuals of those rightly answered yes."""
    asked = [(phantom, name) for phantom in phantoms for name in FINDINGS]
    questions = [question(name, mode) for _, name in asked]
    texts = answers(model, processor, [phantom.image for phantom, _ in asked], questions)
    edits: list[tuple[Phantom, str, str]] = []
    for (phantom, name), text in zip(asked, texts, strict=True):
        verdict = said_yes(text)
        tally, present = tallies[mode, name], name in phantom.attributes
        (tally.present if present else tally.absent).append(verdict is present)
        if present and verdict:
            edits += [(phantom, name, removed) for removed in phantom.attributes]
            if mode == "reason":
                tally.placed.append(text in _true_texts(phantom, name))
    images = {
        (phantom.seed, removed): phantom.without(removed).image
        for phantom in phantoms
        for removed in phantom.attributes
    }
    edited = [images[phantom.seed, removed] for phantom, _, removed in edits]
    texts = answers(model, processor, edited, [question(name, mode) for _, name, _ in edits])
    for (_, name, removed), text in zip(edits, texts, strict=True):
        if removed == name:
            tallies[mode, name].flips.append(said_yes(text) is False)
        else:
            tallies[mode, name].stays.append(said_yes(text) is True)


def _true_texts(phantom: Phantom, name: str) -> list[str]:
    return [
        response(name, "reason", True, finding.side, finding.location)
        for finding in phantom.findings
        if finding.attribute == name
    ]


def totals(tallies: dict[tuple[str, str], Tally], mode: str) -> dict[str, float]:
    """Balanced accuracy (mean over findings), pooled causal rates and pooled place accuracy of one mode."""
    parts = [tally for (m, _), tally in tallies.items() if m == mode]
    pooled = sum(parts, Tally())
    return {
        "balanced": float(np.nanmean([part.balanced for part in parts])),
        "flips": _rate(pooled.flips),
        "stays": _rate(pooled.stays),
        "placed": _rate(pooled.placed),
    }


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """Markdown table, one row per mode and finding and one of totals per mode; counts in brackets."""
    lines = [
        "| mode | finding | balanced accuracy | yes when present | no when absent | flips | stays | right place |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for mode in dict.fromkeys(m for m, _ in tallies):
        parts = {name: tally for (m, name), tally in tallies.items() if m == mode}
        for name, tally in parts.items():
            lines.append(_row(mode, name, tally.balanced, tally))
        lines.append(_row(f"**{mode}**", "**all**", totals(tallies, mode)["balanced"], sum(parts.values(), Tally())))
    return "\n".join(lines)


def _row(mode: str, name: str, balanced: float, tally: Tally) -> str:
    cells = [_cell(part) for part in (tally.present, tally.absent, tally.flips, tally.stays, tally.placed)]
    return f"| {mode} | {name} | {balanced:.3f} | {' | '.join(cells)} |"


def _rate(outcomes: Sequence[bool]) -> float:
    return float(np.mean(outcomes)) if outcomes else float("nan")


def _cell(outcomes: Sequence[bool]) -> str:
    return f"{np.mean(outcomes):.3f} ({len(outcomes)})" if outcomes else "-"
