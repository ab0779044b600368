"""Does a toy LVLM answer because of the finding? Accuracy and counterfactuals on chests it has never seen.

Everything here goes the long way round that any user's code would go: native image, letterbox, the saved processor,
``model.generate``, and the last yes or no of the generated text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import MODES, question
from medground_bench.imaging.overlap import score_boxes
from medground_bench.sources.phantom import FINDINGS as DRAWN
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.planted import FINDINGS, plant

from .data import Chest, canvases, draw_size, frame, load_canvas, zone_of
from .text import response

__all__ = [
    "UNSEEN",
    "Requests",
    "Tally",
    "answers",
    "measure",
    "measure_requests",
    "requests_table",
    "said_yes",
    "table",
    "totals",
    "unseen_phantoms",
    "unseen_planted",
]

UNSEEN = 900_000_000
"""First seed of the chests for evaluation: beyond every training seed."""
_TOGETHER = 8  # chests asked about at a time: their questions share batches
_ABSENT = 4  # questions about absent findings per chest


@dataclass
class Tally:
    """Outcomes for one finding in one mode; every entry is True where the model did right.

    ``flips``: answered yes to a finding that is there, the finding is removed, the answer is no. ``stays``: another
    finding is removed instead, the answer is still yes. Reason mode, of the findings rightly answered yes: ``sided``,
    the text names the right side (of findings that have one); ``placed``, the whole text is right, zone included.
    """

    present: list[bool] = field(default_factory=list)
    absent: list[bool] = field(default_factory=list)
    flips: list[bool] = field(default_factory=list)
    stays: list[bool] = field(default_factory=list)
    sided: list[bool] = field(default_factory=list)
    placed: list[bool] = field(default_factory=list)

    @property
    def balanced(self) -> float:
        """Balanced accuracy: the mean of sensitivity and specificity (of the one there is, if only one)."""
        rates = [float(np.mean(part)) for part in (self.present, self.absent) if part]
        return float(np.mean(rates)) if rates else float("nan")

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)))


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


def said_side(text: str) -> str | None:
    """The side that a text names: left, right or both; None where it names none or contradicts itself."""
    words = set(re.findall(r"\b(left|right|both)\b", text.lower()))
    return words.pop() if len(words) == 1 else None


# Unseen chests -------------------------------------------------------------------------------------------------------


def unseen_phantoms(count: int, first_seed: int = UNSEEN) -> list[Callable[[], Chest]]:
    """Phantoms: every second one carries the findings the phantom draws by itself, the others more of them."""

    def draw(seed: int) -> Chest:
        rng = np.random.default_rng([seed, 2])
        size = draw_size(rng)
        return sample_phantom(seed, size=size, findings=None if seed % 2 else [f for f in DRAWN if rng.random() < 0.5])

    return [lambda seed=seed: draw(seed) for seed in range(first_seed, first_seed + count)]  # type: ignore[misc]


def unseen_planted(folder: str | Path, count: int, localisations: str | Path) -> list[Callable[[], Chest]]:
    """Held-out canvases by name, one to three findings each and, in every second one, distractors.

    Raises
    ------
    LvlmError
        If the folder holds fewer.
    """
    paths = canvases(folder, held_out=True)[:count]
    if len(paths) < count:
        raise LvlmError(f"{len(paths)} held-out canvases", where=folder, expected=f"at least {count}")

    def draw(number: int) -> Chest:
        pixels, anatomy = load_canvas(paths[number], localisations)
        return plant(pixels, anatomy, UNSEEN + number, distractors=bool(number % 2))

    return [lambda number=number: draw(number) for number in range(count)]  # type: ignore[misc]


# Measuring -----------------------------------------------------------------------------------------------------------


def measure(
    model: Any,
    processor: Any,
    chests: Sequence[Callable[[], Chest]],
    modes: Sequence[str] = MODES,
    report: Callable[[int, int], None] | None = None,
) -> dict[tuple[str, str], Tally]:
    """Ask about the findings of unseen chests and some others, then about their counterfactuals.

    Parameters
    ----------
    model, processor
        As loaded by ``AutoModelForImageTextToText`` and ``AutoProcessor``.
    chests : sequence of callable
        Each draws one.
    modes : sequence of {"direct", "reason"}
    report : callable, optional
        ``report(done, total)`` per chest and mode.

    Returns
    -------
    dict
        ``{(mode, finding): Tally}``.
    """
    tallies = {(mode, name): Tally() for mode in modes for name in FINDINGS}
    total, done = len(chests) * len(modes), 0
    for start in range(0, len(chests), _TOGETHER):
        drawn = [draw() for draw in chests[start : start + _TOGETHER]]
        asked = [(chest, name) for number, chest in enumerate(drawn, start) for name in _asked(chest, number)]
        for mode in modes:
            _examine(model, processor, asked, mode, tallies)
            done += len(drawn)
            if report:
                report(done, total)
    return tallies


def _asked(chest: Chest, number: int) -> Iterator[str]:
    """Every finding that is there and a few that are not."""
    yield from chest.attributes
    absent = [name for name in FINDINGS if name not in chest.attributes]
    chosen = np.random.default_rng([number, 5]).permutation(len(absent))[:_ABSENT]
    yield from (absent[i] for i in chosen)


def _examine(
    model: Any,
    processor: Any,
    asked: Sequence[tuple[Chest, str]],
    mode: str,
    tallies: dict[tuple[str, str], Tally],
) -> None:
    questions = [question(name, mode) for _, name in asked]
    texts = answers(model, processor, [chest.image for chest, _ in asked], questions)
    edits: list[tuple[Chest, str, str]] = []
    for (chest, name), text in zip(asked, texts, strict=True):
        verdict = said_yes(text)
        tally, present = tallies[mode, name], name in chest.attributes
        (tally.present if present else tally.absent).append(verdict is present)
        if present and verdict:
            edits += [(chest, name, removed) for removed in chest.attributes]
            if mode == "reason":
                finding = next(f for f in chest.findings if f.attribute == name)
                if finding.side:
                    tally.sided.append(said_side(text) == finding.side)
                tally.placed.append(text == response(name, mode, True, finding.side, zone_of(finding)))
    images = {
        (id(chest), removed): chest.without(removed).image
        for chest in {id(chest): chest for chest, _ in asked}.values()
        for removed in chest.attributes
    }
    edited = [images[id(chest), removed] for chest, _, removed in edits]
    texts = answers(model, processor, edited, [question(name, mode) for _, name, _ in edits])
    for (_, name, removed), text in zip(edits, texts, strict=True):
        if removed == name:
            tallies[mode, name].flips.append(said_yes(text) is False)
        else:
            tallies[mode, name].stays.append(said_yes(text) is True)


@dataclass
class Requests:
    """What was replied about findings that are there and were affirmed, one entry a finding.

    ``boxes`` are those of ``prompting``, ``evidence`` the finding's, ``centre`` those of ``centre_prior``. ``named``:
    whether ``som_prompting`` names a mark; of those, ``held``, how much of the evidence each of the marked parts of the
    chest holds, and ``first``, which of them is named first.
    """

    asked: int = 0
    boxes: list[Any] = field(default_factory=list)
    evidence: list[Any] = field(default_factory=list)
    centre: list[Any] = field(default_factory=list)
    named: list[bool] = field(default_factory=list)
    held: list[NDArray[np.float64]] = field(default_factory=list)
    first: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """IoU of the boxes beside two that know nothing of the finding; rates of the marks beside chance."""
        other = self.boxes[1:] + self.boxes[:1]
        rows = list(zip(self.held, self.first, strict=True))
        return {
            "findings": self.asked,
            "affirmed": len(self.boxes),
            "replies with boxes": float(np.mean([len(boxes) > 0 for boxes in self.boxes])),
            "IoU": float(score_boxes(self.boxes, self.evidence).iou.mean()),
            "IoU of the boxes stated for the next finding": float(score_boxes(other, self.evidence).iou.mean()),
            "IoU of `centre_prior`": float(score_boxes(self.centre, self.evidence).iou.mean()),
            "replies with marks": float(np.mean(self.named)),
            "first mark holds evidence": _rate([bool(held[k] > 0) for held, k in rows]),
            "a random mark would": float(np.mean([(held > 0).mean() for held, _ in rows])),
            "first mark holds the most": _rate([bool(held[k] == held.max() > 0) for held, k in rows]),
            "a random mark would hold the most": float(np.mean([(held.max() > 0) / len(held) for held, _ in rows])),
        }


def measure_requests(
    lvlm: Any, chests: Sequence[Callable[[], Chest]], report: Callable[[int, int], None] | None = None
) -> Requests:
    """Ask about the findings of unseen chests, and where the answer is yes for boxes and marks, as the methods do."""
    from PIL import Image

    from medground_bench.attribution.attribute import attribute
    from medground_bench.attribution.regions import REST, named_regions

    out = Requests()
    for number, draw in enumerate(chests, start=1):
        chest = draw()
        image = Image.fromarray(chest.image)
        for finding in chest.findings:
            asked = question(finding.attribute, "direct")
            out.asked += 1
            if not said_yes(lvlm.generate([image], [asked], max_new_tokens=8)[0].text):
                continue
            boxes, centre, marks = (
                attribute(image, name, lvlm, question=asked, response="Yes")
                for name in ("prompting", "centre_prior", "som_prompting")
            )
            out.boxes.append(boxes.boxes)
            out.centre.append(centre.boxes)
            out.evidence.append(list(finding.boxes))
            named = marks.attribution.extras["named"]
            out.named.append(bool(named))
            if named:
                episode = lvlm.prepare(image, asked, "Yes")
                labels, parts = named_regions("anatomy", episode)
                seen = episode.letterbox.heatmap_to_frame(finding.mask.astype(float))
                marked = [part for part in parts if part != REST]
                out.held.append(np.array([seen[labels == parts.index(part)].sum() for part in marked]) / seen.sum())
                out.first.append(marked.index(named[0]))
        if report:
            report(number, len(chests))
    return out


# Tables --------------------------------------------------------------------------------------------------------------


def totals(tallies: dict[tuple[str, str], Tally], mode: str) -> dict[str, float]:
    """Balanced accuracy (mean over findings), pooled causal rates and pooled accuracies of side and place of a mode."""
    parts = [tally for (m, _), tally in tallies.items() if m == mode and (tally.present or tally.absent)]
    pooled = sum(parts, Tally())
    rates = {name: _rate(getattr(pooled, name)) for name in ("flips", "stays", "sided", "placed")}
    return {"balanced": float(np.mean([part.balanced for part in parts])), **rates}


def table(tallies: dict[tuple[str, str], Tally]) -> str:
    """Markdown table, one row per mode and finding and one of totals per mode; counts in brackets."""
    columns = ("balanced accuracy", "yes when present", "no when absent", "flips", "stays", "right side", "right place")
    lines = [f"| mode | finding | {' | '.join(columns)} |", "| --- " * (2 + len(columns)) + "|"]
    for mode in dict.fromkeys(m for m, _ in tallies):
        parts = {name: tally for (m, name), tally in tallies.items() if m == mode and (tally.present or tally.absent)}
        for name, tally in parts.items():
            lines.append(_row(mode, name, tally.balanced, tally))
        lines.append(_row(f"**{mode}**", "**all**", totals(tallies, mode)["balanced"], sum(parts.values(), Tally())))
    return "\n".join(lines)


def requests_table(asked: Requests) -> str:
    """Markdown table of :meth:`Requests.figures`."""
    cells = [(name, f"{value:.3f}" if isinstance(value, float) else value) for name, value in asked.figures().items()]
    return "\n".join(["| requests | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells), ""])


def _row(mode: str, name: str, balanced: float, tally: Tally) -> str:
    return f"| {mode} | {name} | {balanced:.3f} | {' | '.join(_cell(getattr(tally, f.name)) for f in fields(Tally))} |"


def _rate(outcomes: Sequence[bool]) -> float:
    return float(np.mean(outcomes)) if outcomes else float("nan")


def _cell(outcomes: Sequence[bool]) -> str:
    return f"{np.mean(outcomes):.3f} ({len(outcomes)})" if outcomes else "-"
