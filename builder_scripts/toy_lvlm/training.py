"""Training a toy LVLM on rendered phantoms.

Two phases. First the vision tower alone learns to tell, at every image token, which findings lie under it: a dense
loss with a linear head that is thrown away afterwards. Then the whole model learns to answer, several questions about
every image in each step, with the dense loss kept on the side. What else mattered: many different images with their
counterfactuals, many small steps (16 images, a short memory of squared gradients), and weight on the tokens at which
the canonical answers part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medground_bench.core.schema import MODES, Mode, question
from medground_bench.sources.phantom import FINDINGS

from .data import CELLS, SIDE, Pool
from .forward import ToyForward, pad_right
from .text import responses

__all__ = ["Recipe", "Row", "answer_rows", "train"]

HELD_OUT = 256
"""Images at the end of the pool that are only looked at, never trained on."""


@dataclass(frozen=True)
class Recipe:
    """How a toy is trained.

    Attributes
    ----------
    vision_steps : int
        Steps of the first phase.
    steps : int
        Steps of the second phase.
    batch : int
        Images per step.
    vision_rate, rate : float
        Peak learning rates of the phases (in the second, a quarter of it for the vision tower). Each is a one-cycle
        schedule with 10 % warm-up; AdamW with weight decay 0.01 and second-moment decay 0.98, gradient norm clipped
        to 1.
    questions : tuple of (mode, int)
        Questions per image and step.
    dense : float
        Weight of the dense loss in the second phase.
    cutouts : float
        Share of images of which random rectangles are blacked out; a finding that is covered counts as absent.
    seed : int
    """

    vision_steps: int = 4000
    steps: int = 1800
    batch: int = 16
    vision_rate: float = 4e-3
    rate: float = 2e-3
    questions: tuple[tuple[Mode, int], ...] = (("direct", 6), ("reason", 3))
    dense: float = 2.0
    cutouts: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """One question with one canonical answer, tokenized: ids after the image and the weight of predicting each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    splits: tuple[int, ...]  # positions that predict a token at which "Yes" and "No" answers part


def answer_rows(forward: ToyForward, attribute: str, mode: str) -> list[Row]:
    """Rows of every canonical answer, in the order of :func:`responses`.

    A token is worth predicting in as much as it decides something: 1 where present and absent answers part, 0.3 where
    places part, 0.05 elsewhere (the text is then already determined).
    """
    branches = [forward.conversations.branch(question(attribute, mode), text) for text in responses(attribute, mode)]
    start = branches[0][1]
    answers = [tuple(ids[start:]) for ids, _ in branches]
    rows = []
    for case, (ids, _) in enumerate(branches):
        weights, splits = [0.0] * len(ids), []
        for place in range(start, len(ids)):
            said = answers[case][: place - start]
            nexts = {
                (bool(other), answer[place - start])
                for other, answer in enumerate(answers)
                if len(answer) > place - start and answer[: place - start] == said
            }
            tokens = {token for _, token in nexts}
            parts = len(tokens) > 1
            decides = parts and {present for present, _ in nexts} == {True, False}
            weights[place] = 1.0 if decides else 0.3 if parts else 0.05
            if decides:
                splits.append(place - 1)
        rows.append(Row(tuple(ids), tuple(weights), tuple(splits)))
    return rows


class _Sampler:
    """Batches of images with the questions asked about them."""

    def __init__(self, pool: Pool, recipe: Recipe) -> None:
        self.pool, self.recipe = pool, recipe
        self.rng = np.random.default_rng([recipe.seed, 7])
        self.count = len(pool.frames) - HELD_OUT

    def batch(self, cut: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
        """Frames, case of each finding (-1: undecidable, not asked) and masks."""
        index = np.sort(self.rng.choice(self.count, self.recipe.batch, replace=False))
        frames = np.array(self.pool.frames[index])
        masks = self.pool.unpacked(index)
        cases = self.pool.cases[index].astype(np.int64)
        for i in range(len(index)):
            frames[i] = self._develop(frames[i])
            if cut and self.rng.random() < self.recipe.cutouts:
                self._cut(frames[i], masks[i], cases[i])
        return frames, cases, masks

    def _develop(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A slightly different gamma and contrast; black stays black (padding and blacked-out regions are zero)."""
        levels = np.arange(256) / 255.0
        table = levels ** np.exp(self.rng.normal(0, 0.08)) * np.exp(self.rng.normal(0, 0.05))
        return np.clip(np.rint(table * 255), 0, 255).astype(np.uint8)[frame]

    def _cut(self, frame: NDArray[np.uint8], masks: NDArray[np.bool_], cases: NDArray[np.int64]) -> None:
        area = masks.sum((1, 2))
        for _ in range(int(self.rng.integers(1, 4))):
            h, w = (int(v) for v in self.rng.integers(4, 24, 2))
            y, x = int(self.rng.integers(0, CELLS - h + 1)), int(self.rng.integers(0, CELLS - w + 1))
            frame[y * 4 : (y + h) * 4, x * 4 : (x + w) * 4] = 0
            masks[:, y : y + h, x : x + w] = False
        seen = masks.sum((1, 2)) / np.maximum(area, 1)
        present = cases > 0
        cases[present & (seen < 0.05)] = 0
        cases[present & (seen >= 0.05) & (seen < 0.75)] = -1

    def ask(self, cases: NDArray[np.int64], count: int) -> list[list[int]]:
        """For each image ``count`` findings to ask for, half of them present as far as there are enough."""
        asked = []
        for row in cases:
            present = self.rng.permutation(np.flatnonzero(row > 0))[: (count + 1) // 2]
            absent = self.rng.permutation(np.flatnonzero(row == 0))[: count - len(present)]
            rest = self.rng.permutation(np.setdiff1d(np.flatnonzero(row >= 0), [*present, *absent]))
            chosen = [*present, *absent, *rest][:count]
            asked.append([*chosen, *chosen * count][:count])  # very few decidable: ask again
        return asked


def train(
    model: Any,
    processor: Any,
    pool: Pool,
    recipe: Recipe,
    report: Callable[[int, dict[str, float]], None],
    checkpoint: Callable[[int], None] | None = None,
    every: int = 100,
) -> None:
    """Train in place.

    Parameters
    ----------
    model, processor
        From ``architecture.build``.
    pool : Pool
        Its last ``HELD_OUT`` images are kept for the accuracy that ``report`` gets.
    recipe : Recipe
    report : callable
        ``report(step, figures)`` every ``every`` steps: losses and seconds; on the held-out images, how well each
        finding is seen (first phase), the accuracy per mode and finding (second phase).
    checkpoint : callable, optional
        Called with the step after each report of the second phase; it may save the model.
    """
    torch.manual_seed(recipe.seed)
    forward = ToyForward(model, processor, SIDE)
    rows = {mode: [answer_rows(forward, name, mode) for name in FINDINGS] for mode in MODES}
    sampler = _Sampler(pool, recipe)
    dense = _Dense(model.config.get_text_config().hidden_size, pool)
    log = _Log(report, every)

    def vision_step() -> dict[str, Tensor]:
        frames, _, masks = sampler.batch(cut=True)
        return {"dense": dense(forward.image_tokens(frames), masks)}

    def joint_step() -> dict[str, Tensor]:
        frames, cases, masks = sampler.batch(cut=True)
        tokens = forward.image_tokens(frames)
        losses = {"dense": recipe.dense * dense(tokens, masks)}
        cache = forward.prefix(tokens)
        for mode, count in recipe.questions:
            chosen = [
                rows[mode][finding][_case(rows[mode][finding], cases[image, finding])]
                for image, asked in enumerate(sampler.ask(cases, count))
                for finding in asked
            ]
            losses[mode] = _answer_loss(forward, cache, chosen)
        return losses

    def after_seeing(step: int) -> None:
        if log.due(step):
            log.write(step, seen(forward, dense, pool))

    def after(step: int) -> None:
        if log.due(step):
            log.write(step, held_out(forward, rows, pool))
            if checkpoint:
                checkpoint(step)

    model.train()
    parts = [*_vision(model), *dense.parameters()]
    if recipe.vision_steps:
        groups = [{"params": parts, "lr": recipe.vision_rate}]
        _descend(groups, recipe.vision_steps, vision_step, log, after_seeing)
    seeing = {id(part) for part in _vision(model)}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in seeing], "lr": recipe.rate},
        # What has been learned about seeing is only adjusted.
        {"params": parts, "lr": recipe.rate * (0.25 if recipe.vision_steps else 1.0)},
    ]
    _descend(groups, recipe.steps, joint_step, log, after)
    model.set_attn_implementation("sdpa")
    model.eval()


def _descend(
    groups: list[dict[str, Any]],
    steps: int,
    losses: Callable[[], dict[str, Tensor]],
    log: _Log,
    after: Callable[[int], None],
) -> None:
    """One phase: ``steps`` optimiser steps on the sum of ``losses()``."""
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    peaks = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps, pct_start=0.1)
    parameters = [parameter for group in groups for parameter in group["params"]]
    for step in range(1, steps + 1):
        with torch.autocast("cpu", torch.bfloat16):
            parts = losses()
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        log.add(step, steps, parts)
        after(step)


class _Log:
    """Mean losses since the last report."""

    def __init__(self, report: Callable[[int, dict[str, float]], None], every: int) -> None:
        self.report, self.every = report, every
        self.began = time.monotonic()
        self.steps = 0
        self.sums: dict[str, list[float]] = {}

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def add(self, step: int, steps: int, losses: dict[str, Tensor]) -> None:
        self.steps = steps
        for name, value in losses.items():
            self.sums.setdefault(name, []).append(float(value.detach()))

    def write(self, step: int, figures: dict[str, float]) -> None:
        means = {name: float(np.mean(values)) for name, values in self.sums.items()}
        self.sums = {}
        self.report(step, {**means, "seconds": time.monotonic() - self.began, **figures})


class _Dense(nn.Module):
    """Which findings lie under each quarter of each image token.

    A small finding has a small cross-entropy whatever the model does; each finding's loss is therefore taken relative
    to that of always answering its base rate, so that a broken clavicle counts as much as a large heart.
    """

    def __init__(self, width: int, pool: Pool) -> None:
        super().__init__()
        self.head = nn.Linear(width, 4 * len(FINDINGS))
        some = np.arange(min(512, len(pool.frames)))
        share = self._target(pool.unpacked(some)).mean((0, 1)).reshape(len(FINDINGS), 4).mean(1).clamp(1e-4, 0.5)
        entropy = -(share * share.log() + (1 - share) * (1 - share).log())
        self.scale = (0.05 / entropy).repeat_interleave(4)
        self.weight = (0.05 / share).sqrt().clamp(1.0, 8.0).repeat_interleave(4)
        with torch.no_grad():
            self.head.bias.copy_((share / (1 - share)).log().repeat_interleave(4))

    def forward(self, tokens: Tensor, masks: NDArray[np.bool_]) -> Tensor:
        return functional.binary_cross_entropy_with_logits(
            self.head(tokens).float(), self._target(masks), weight=self.scale, pos_weight=self.weight
        )

    @staticmethod
    def _target(masks: NDArray[np.bool_]) -> Tensor:
        """(B, findings, CELLS, CELLS) -> (B, 64, findings * 4): three times the covered share, at most 1."""
        fine = functional.interpolate(torch.from_numpy(masks).float(), scale_factor=2, mode="nearest")
        share = functional.avg_pool2d(fine, CELLS * 2 // 16)
        count, findings = share.shape[:2]
        quarters = (share * 3).clamp(0, 1).reshape(count, findings, 8, 2, 8, 2).permute(0, 2, 4, 1, 3, 5)
        return quarters.reshape(count, 64, findings * 4)


def _vision(model: Any) -> list[nn.Parameter]:
    """Parameters between the pixels and the image tokens."""
    parts = ("visual", "vision_tower", "multi_modal_projector")
    return [p for part in parts for p in getattr(model.model, part, nn.Module()).parameters()]


def _case(rows: list[Row], case: int) -> int:
    return min(int(case), len(rows) - 1)  # in direct mode every place is "Yes"


def _answer_loss(forward: ToyForward, cache: Any, chosen: list[Row]) -> Tensor:
    ids = pad_right([row.ids for row in chosen], 0)
    weights = torch.zeros(ids.shape)
    for index, row in enumerate(chosen):
        weights[index, : len(row.weights)] = torch.tensor(row.weights)
    # The answer's rows only: nothing else is predicted.
    states = forward.branches(cache, ids[:, :-1])
    wanted = weights[:, 1:] > 0
    logits = forward.model.lm_head(states[wanted]).float()
    loss = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    weight = weights[:, 1:][wanted]
    return (loss * weight).sum() / weight.sum()


@torch.no_grad()
def seen(forward: ToyForward, dense: _Dense, pool: Pool) -> dict[str, float]:
    """How well the brightest spot of the dense head tells the held-out images with a finding from those without.

    The area under the ROC curve, ``{"seeing auc": mean, "seeing <finding>": ...}``.
    """
    scores = []
    for index in _chunks(range(len(pool.frames) - HELD_OUT, len(pool.frames)), 32):
        with torch.autocast("cpu", torch.bfloat16):
            logits = dense.head(forward.image_tokens(np.array(pool.frames[index]))).float()
        scores.append(logits.reshape(len(index), 64, len(FINDINGS), 4).amax((1, 3)).numpy())
    score, present = np.concatenate(scores), pool.cases[-HELD_OUT:] > 0
    each: dict[str, float] = {}
    for finding, name in enumerate(FINDINGS):
        yes, no = score[present[:, finding], finding], score[~present[:, finding], finding]
        wins = (yes[:, None] > no).mean() + 0.5 * (yes[:, None] == no).mean() if len(yes) and len(no) else np.nan
        each[f"seeing {name}"] = float(wins)
    return {"seeing auc": float(np.nanmean(list(each.values()))), **each}


@torch.no_grad()
def held_out(forward: ToyForward, rows: Mapping[Mode, list[list[Row]]], pool: Pool) -> dict[str, float]:
    """Balanced accuracy of the decision token on the held-out images, ``{mode: mean, "mode finding": ...}``."""
    model = forward.model
    was = model.training
    model.eval()
    right: dict[tuple[str, int, bool], list[bool]] = {}
    for index in _chunks(range(len(pool.frames) - HELD_OUT, len(pool.frames)), 32):
        cases = pool.cases[index]
        with torch.autocast("cpu", torch.bfloat16):
            cache = forward.prefix(forward.image_tokens(np.array(pool.frames[index])))
            for mode in MODES:
                # "No" is what greedy decoding says if it takes every turn that the canonical "No" takes.
                negatives = [rows[mode][finding][0] for finding in range(len(FINDINGS))]
                ids = pad_right([row.ids for row in negatives] * len(index), 0)
                said = model.lm_head(forward.branches(cache, ids)).argmax(-1)
                said_no = [
                    all(said[n, spot] == ids[n, spot + 1] for spot in negatives[n % len(FINDINGS)].splits)
                    for n in range(len(ids))
                ]
                for row, no_said in enumerate(said_no):
                    image, finding = divmod(row, len(FINDINGS))
                    present = bool(cases[image, finding] > 0)
                    right.setdefault((mode, finding, present), []).append(no_said != present)
    model.train(was)
    out: dict[str, float] = {}
    for mode in MODES:
        each = [
            float(
                np.mean([np.mean(right[mode, f, present]) for present in (True, False) if (mode, f, present) in right])
            )
            for f in range(len(FINDINGS))
        ]
        out[f"{mode} accuracy"] = float(np.mean(each))
        out.update({f"{mode} {name}": value for name, value in zip(FINDINGS, each, strict=True)})
    return out


def _chunks(items: range, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(items), size):
        yield np.asarray(items[start : start + size])
