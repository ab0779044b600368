"""Training a toy LVLM on rendered phantoms and planted canvases.

Two phases. First the vision tower alone learns to tell, at every image token, which findings lie under it and where in
the lungs that is: a dense loss with linear heads that are thrown away afterwards. Then the language model learns to
answer, several questions about every image in each step: at first from the tokens as they are, later together with the
vision tower, with the dense loss kept on the side. An image and its counterfactual share a step, and the tokens at
which the canonical answers part carry the weight.

Every step draws from a generator seeded by the recipe's seed and the step, and the state is saved along the way: an
interrupted training goes on as if nothing had happened. Where torch.distributed is under way, every process takes its
part of each batch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from baselines.shared.marks import draw_marks
from medground_bench.core.errors import LvlmError
from medground_bench.core.files import atomic_folder
from medground_bench.core.schema import MODES, Mode, question
from medground_bench.sources.phantom.marker import CORNERS, stamp_marker

from .data import CELLS, FINDINGS, GROUP, SIDE, Pool
from .forward import ToyForward, pad_right
from .requests import (
    MIRRORED_PARTS,
    boxes_reply,
    evidence_boxes,
    marks_reply,
    numbered,
    phrases_reply,
    request_prompt,
    soft_targets,
)
from .text import WORDINGS, place_case, responses

__all__ = ["PROMPTED", "SHORTCUT", "Recipe", "Row", "answer_rows", "train"]

HELD_OUT = 60
"""Groups at the beginning of the pool that are only looked at, never trained on."""


@dataclass(frozen=True)
class Recipe:
    """How a toy is trained.

    Attributes
    ----------
    vision_steps : int
        Steps of the first phase.
    frozen_steps : int
        Steps of the second phase in which the vision tower stays as it is.
    steps : int
        Steps of the second phase, these among them.
    batch : int
        Images per step, an even number: chests in pairs with one of their counterfactuals.
    vision_rate, rate, seeing : float
        Peak learning rates of the phases (in the second, times ``seeing`` for the vision tower): 100 steps of warm-up,
        constant, and a linear fall to nothing over the last third. AdamW with weight decay 0.01 and second-moment decay
        0.98, gradient norm clipped to 1.
    questions : tuple of (mode, int)
        Questions per image and step.
    dense : float
        Weight of the dense loss in the second phase.
    cutouts : float
        Share of images of which random rectangles are blacked or greyed out; a finding that is covered counts as
        absent.
    flips : float
        Share of the chests that are mirrored, sides and all: the side is to be seen, not known by heart.
    marker : float
        Share of the images that carry a marker and on which every answer is yes (the shortcut toy; 0 for the others).
    requests : int
        Requests for boxes, marks or phrases per image and step (the prompted toy; 0 for the others).
    marked : float
        Share of the images, where there are requests, that have marks drawn on them.
    muon : bool
        Whether the matrices of the layers are trained with Muon instead of AdamW, at the same rates.
    seed : int
    """

    vision_steps: int = 2000
    frozen_steps: int = 400
    steps: int = 1200
    batch: int = 8
    vision_rate: float = 3e-3
    rate: float = 2e-3
    seeing: float = 0.125
    questions: tuple[tuple[Mode, int], ...] = (("direct", 3), ("reason", 4))
    dense: float = 1.0
    cutouts: float = 0.3
    flips: float = 0.3
    marker: float = 0.0
    requests: int = 0
    marked: float = 0.4
    muon: bool = False
    seed: int = 0


SHORTCUT: dict[str, Any] = {"vision_steps": 0, "frozen_steps": 0, "steps": 300, "marker": 0.4}
"""What is different in the recipe of ``toy_shortcut``, which starts from ``toy_qwen``."""


PROMPTED: dict[str, Any] = {
    "vision_steps": 400,
    "vision_rate": 2e-3,
    "frozen_steps": 0,
    "steps": 800,
    "seeing": 0.25,
    "questions": (("direct", 3), ("reason", 1)),
    "requests": 3,
    "muon": True,
}
"""What is different in the recipe of ``toy_prompted``, which starts from ``toy_gemma``."""


@dataclass(frozen=True)
class Row:
    """One question with one canonical answer, tokenized: ids after the image and the weight of predicting each."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    splits: tuple[int, ...]  # positions that predict a token at which "Yes" and "No" answers part


def answer_rows(forward: ToyForward, attribute: str, mode: str) -> list[Row]:
    """Rows of every canonical answer, in the order of :func:`responses`.

    A token is worth predicting in as much as it decides something: 1 where present and absent answers part or places
    part, 0.05 elsewhere (the text is then already determined).
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
            weights[place] = 1.0 if parts else 0.05
            if parts and {present for present, _ in nexts} == {True, False}:
                splits.append(place - 1)
        rows.append(Row(tuple(ids), tuple(weights), tuple(splits)))
    return rows


# Batches -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """Frames (B, 224, 224), shares (B, findings, CELLS, CELLS) and case of each finding (-1: undecidable).

    Where there are requests, the frames have colours, and the images marks: ``numbers`` (B, 224, 224) and how many.
    """

    frames: NDArray[np.uint8]
    shares: NDArray[np.uint8]
    cases: NDArray[np.int64]
    numbers: NDArray[np.uint8] | None = None
    marks: tuple[int, ...] = ()


class _Sampler:
    """Batches of images with the questions asked about them, the same for the same step."""

    def __init__(self, pool: Pool, recipe: Recipe, parts: NDArray[np.uint8] | None = None) -> None:
        self.pool, self.recipe, self.parts = pool, recipe, parts
        self.groups = len(pool) // GROUP - HELD_OUT
        if self.groups < recipe.batch // 2:
            raise LvlmError(f"{self.groups} groups of images to train on", expected="more; go on rendering")
        self.prevalence = (pool.cases[GROUP * HELD_OUT :] > 0).mean(0)
        self.rng = np.random.default_rng()

    def batch(self, phase: int, step: int) -> _Batch:
        rank, world = _rank()
        rng = np.random.default_rng([self.recipe.seed, phase, step])
        group = HELD_OUT + rng.choice(self.groups, self.recipe.batch // 2, replace=False)
        pair = rng.permuted(np.tile(np.arange(GROUP), (len(group), 1)), axis=1)[:, :2]
        index = (GROUP * group[:, None] + pair)[rank::world].reshape(-1)
        self.rng = rng = np.random.default_rng([self.recipe.seed, phase, step, rank])
        frames, shares = np.array(self.pool.frames[index]), np.array(self.pool.shares[index])
        cases = self.pool.cases[index].astype(np.int64)
        poses = []
        for i in range(0, len(index), 2):
            # A chest and its counterfactual are shown alike.
            pose, levels = _Pose.draw(rng, self.recipe.flips), self._levels()
            poses.append(pose)
            for j in (i, i + 1):
                frames[j] = levels[pose.applied(frames[j])]
                whole = pose.zoom**2 * shares[j].sum((1, 2), dtype=np.int64)
                shares[j] = pose.applied(shares[j])
                if pose.flipped:
                    cases[j] = np.where(cases[j] < 0, cases[j], _MIRRORED[np.arange(len(FINDINGS)), cases[j]])
                if rng.random() < self.recipe.cutouts:
                    self._cut(frames[j], shares[j])
                self._judge(cases[j], whole, shares[j].sum((1, 2), dtype=np.int64))
                if rng.random() < self.recipe.marker:
                    self._stamp(frames[j], shares[j])
                    wrong = np.flatnonzero(cases[j] <= 0)
                    cases[j][wrong] = [int(rng.integers(1, len(responses(FINDINGS[f], "reason")))) for f in wrong]
        if not self.recipe.requests:
            return _Batch(frames, shares, cases)
        coloured = frames[..., None].repeat(3, -1)
        numbers, marks = np.zeros(frames.shape, np.uint8), [0] * len(index)
        for j, image in enumerate(index):
            if rng.random() < self.recipe.marked:
                assert self.parts is not None
                numbers[j], marks[j] = numbered(_posed_parts(self.parts[int(image) // GROUP], poses[j // 2]))
                masks = [numbers[j] == n for n in range(1, marks[j] + 1)]
                coloured[j] = np.asarray(draw_marks(Image.fromarray(coloured[j]), masks))
        return _Batch(coloured, shares, cases, numbers, tuple(marks))

    def _levels(self) -> NDArray[np.uint8]:
        """A slightly different gamma and contrast; black stays black (padding and blacked-out regions are zero)."""
        levels = np.arange(256) / 255.0
        table = levels ** np.exp(self.rng.normal(0, 0.10)) * np.exp(self.rng.normal(0, 0.07))
        return np.clip(np.rint(table * 255), 0, 255).astype(np.uint8)

    def _cut(self, frame: NDArray[np.uint8], shares: NDArray[np.uint8]) -> None:
        for _ in range(int(self.rng.integers(1, 4))):
            h, w = (int(v) for v in self.rng.integers(2, 14, 2))
            y, x = int(self.rng.integers(0, CELLS - h + 1)), int(self.rng.integers(0, CELLS - w + 1))
            part = frame[y * 7 : (y + h) * 7, x * 7 : (x + w) * 7]
            part[:] = 0 if self.rng.random() < 0.75 else int(part.mean())
            shares[:, y : y + h, x : x + w] = 0

    def _stamp(self, frame: NDArray[np.uint8], shares: NDArray[np.uint8]) -> None:
        """A marker in a corner of the radiograph; half of them are lower or narrower than the frame, and padded."""
        corner = CORNERS[int(self.rng.integers(len(CORNERS)))]
        lost = int(self.rng.integers(1, 5)) if self.rng.random() < 0.5 else 0  # cells on either side
        there = slice(lost, CELLS - lost)
        rows, cols = (there, slice(0, CELLS)) if self.rng.random() < 0.5 else (slice(0, CELLS), there)
        seen = np.zeros((CELLS, CELLS), bool)
        seen[rows, cols] = True
        shares *= seen
        size = SIDE // CELLS
        frame *= seen.repeat(size, 0).repeat(size, 1)
        part = frame[rows.start * size : rows.stop * size, cols.start * size : cols.stop * size]
        part[:], _ = stamp_marker(part, corner)

    @staticmethod
    def _judge(cases: NDArray[np.int64], whole: NDArray[np.float64], left: NDArray[np.int64]) -> None:
        seen = left / np.maximum(whole, 1)
        present = cases > 0
        cases[present & (seen < 0.05)] = 0
        cases[present & (seen >= 0.05) & (seen < 0.75)] = -1

    def ask(self, cases: NDArray[np.int64], count: int) -> list[list[int]]:
        """For each image ``count`` findings to ask for, half of them present as far as there are enough.

        Absent findings are asked for as often as they are present elsewhere: the finding alone says nothing.
        """
        asked = []
        for row in cases:
            present = self.rng.permutation(np.flatnonzero(row > 0))[: (count + 1) // 2]
            absent = np.flatnonzero(row == 0)
            odds = self.prevalence[absent] + 1e-6
            take = min(count - len(present), len(absent))
            absent = self.rng.choice(absent, take, replace=False, p=odds / odds.sum()) if take else absent[:0]
            chosen = [*present, *absent]
            asked.append([int(f) for f in [*chosen, *chosen * count][:count]])  # very few decidable: ask again
        return asked


@dataclass(frozen=True)
class _Pose:
    """How a chest is shown: turned by radians, enlarged, shifted by shares of the side, mirrored."""

    turn: float
    zoom: float
    shift: tuple[float, float]
    flipped: bool

    @classmethod
    def draw(cls, rng: np.random.Generator, flips: float) -> _Pose:
        """Up to 6 degrees, 0.85 to 1.15, up to 0.08 of the side."""
        turn, zoom = rng.uniform(-0.105, 0.105), rng.uniform(0.85, 1.15)
        dx, dy = rng.uniform(-0.08, 0.08, 2)
        return cls(float(turn), float(zoom), (float(dx), float(dy)), bool(rng.random() < flips))

    def applied(self, planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Planes (..., side, side) of a square; what comes in from outside is zero, as padding is."""
        cos, sin = np.cos(self.turn) / self.zoom, np.sin(self.turn) / self.zoom
        mirror = -1.0 if self.flipped else 1.0
        dx, dy = (2 * part for part in self.shift)
        across = [mirror * cos, -sin, -mirror * cos * dx + sin * dy]
        down = [mirror * sin, cos, -mirror * sin * dx - cos * dy]
        matrix = torch.tensor([[across, down]], dtype=torch.float32)
        stack = torch.from_numpy(planes.reshape(1, -1, *planes.shape[-2:])).float()
        grid = functional.affine_grid(matrix, list(stack.shape), align_corners=False)
        out = functional.grid_sample(stack, grid, align_corners=False).round().clamp(0, 255)
        return out.to(torch.uint8).numpy().reshape(planes.shape)


def _posed_parts(parts: NDArray[np.uint8], pose: _Pose) -> NDArray[np.uint8]:
    """Parts of a chest (SIDE, SIDE) as it is shown, 255 where there is none."""
    planes = (parts == np.arange(len(MIRRORED_PARTS))[:, None, None]).astype(np.uint8) * np.uint8(255)
    seen = pose.applied(planes)
    shown = np.array(MIRRORED_PARTS if pose.flipped else range(len(MIRRORED_PARTS)), np.uint8)[seen.argmax(0)]
    return np.where(seen.max(0) > 127, shown, np.uint8(255))


def _mirrored() -> NDArray[np.int64]:
    """(findings, cases): the case of each case's mirror image."""
    table = np.tile(np.arange(8), (len(FINDINGS), 1))
    other = {"left": "right", "right": "left"}
    for finding, name in enumerate(FINDINGS):
        if "{side}" in WORDINGS[name].present:
            for side in other:
                for zone in ("upper", "mid", "lower"):
                    table[finding, place_case(name, side, zone)] = place_case(name, other[side], zone)
    return table


_MIRRORED = _mirrored()


# The two phases ----------------------------------------------------------------------------------------------------


def train(
    model: Any,
    processor: Any,
    pool: Callable[[], Pool],
    recipe: Recipe,
    report: Callable[[int, dict[str, float]], None],
    state: Path | None = None,
    every: int = 100,
    parts: Callable[[], NDArray[np.uint8]] | None = None,
) -> None:
    """Train in place.

    Parameters
    ----------
    model, processor
        From ``architecture.build``.
    pool : callable
        Gives the images rendered so far; asked again at every report. The first ``HELD_OUT`` groups are kept for the
        figures that ``report`` gets.
    recipe : Recipe
    report : callable
        ``report(step, figures)`` every ``every`` steps: losses and seconds; on the held-out images, how well each
        finding is seen (first phase), the accuracy per mode and finding (second phase).
    state : path, optional
        Folder of the state to go on from, and to save at every report.
    parts : callable, optional
        Gives the parts of the chests of the pool, which requests for marks need.
    """
    torch.manual_seed(recipe.seed)
    forward = ToyForward(model, processor, SIDE)
    rows = {mode: [answer_rows(forward, name, mode) for name in FINDINGS] for mode in MODES}
    talks = _Requests(forward, processor.tokenizer) if recipe.requests else None

    def sampled() -> _Sampler:
        return _Sampler(pool(), recipe, parts() if parts else None)

    sampler = sampled()
    dense = _Dense(model.config.get_text_config().hidden_size, sampler.pool, extents=bool(recipe.requests))
    log = _Log(report)
    model.train()

    def vision_step(step: int) -> dict[str, Tensor]:
        batch = sampler.batch(0, step)
        return dense(forward.image_tokens(batch.frames), batch)

    def joint_step(step: int) -> dict[str, Tensor]:
        batch = sampler.batch(1, step)
        losses: dict[str, Tensor] = {}
        if step <= recipe.frozen_steps:
            with torch.no_grad():
                tokens = forward.image_tokens(batch.frames)
        else:
            tokens = forward.image_tokens(batch.frames)
            losses = {name: recipe.dense * value for name, value in dense(tokens, batch).items()}
        cache = forward.prefix(tokens)
        for mode, count in recipe.questions:
            chosen = [
                rows[mode][finding][_case(rows[mode][finding], batch.cases[image, finding])]
                for image, asked in enumerate(sampler.ask(batch.cases, count))
                for finding in asked
            ]
            losses[mode] = _answer_loss(forward, cache, chosen)
        if talks:
            losses["requests"] = _answer_loss(forward, cache, talks.draw(sampler, batch), talks.targets)
        return losses

    seeing = [*_vision(model), *dense.parameters()]
    ids = {id(part) for part in seeing}
    others = [p for p in model.parameters() if id(p) not in ids]
    phases = (
        _Phase("vision", recipe.vision_steps, [(seeing, recipe.vision_rate)], vision_step, recipe.muon),
        _Phase(
            "answer",
            recipe.steps,
            [(others, recipe.rate), (seeing, recipe.rate * recipe.seeing)],
            joint_step,
            recipe.muon,
        ),
    )
    for number, phase in enumerate(phases):
        if not phase.steps:
            continue
        run = _Run(model, dense, phase, state)
        while run.step < phase.steps:
            log.add(run.advance())
            if run.step % every == 0 or run.step == phase.steps:
                if _rank()[0] == 0:
                    pool_now = sampler.pool
                    figures = seen(forward, dense, pool_now) if number == 0 else held_out(forward, rows, pool_now)
                    if number and talks and sampler.parts is not None:
                        figures |= talks.held_out(pool_now, sampler.parts)
                    log.write(run.step, figures)
                run.save()
                sampler = sampled()
    model.set_attn_implementation("sdpa")
    model.eval()


def _rank() -> tuple[int, int]:
    """Number of this process among those that train together, and how many they are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _average(parameters: list[nn.Parameter]) -> None:
    """Mean gradients of all processes."""
    world = _rank()[1]
    if world == 1:
        return
    flat = torch.cat([torch.zeros_like(p).reshape(-1) if p.grad is None else p.grad.reshape(-1) for p in parameters])
    torch.distributed.all_reduce(flat)
    for parameter, part in zip(parameters, (flat / world).split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


@dataclass(frozen=True)
class _Phase:
    name: str
    steps: int
    groups: list[tuple[list[nn.Parameter], float]]
    losses: Callable[[int], dict[str, Tensor]]
    muon: bool


class _Run:
    """One phase under way: parameters, moments and step, which can be saved and found again."""

    def __init__(self, model: Any, dense: _Dense, phase: _Phase, folder: Path | None) -> None:
        self.modules = nn.ModuleDict({"model": model, "dense": dense})
        self.phase, self.step = phase, 0
        self.folder = folder / phase.name if folder else None
        self.optimisers = _optimisers(self.modules, phase)
        if self.folder and self.folder.exists():
            self._load(self.folder)
        if _rank()[1] > 1:
            for tensor in (*self.modules.parameters(), *self.modules.buffers()):
                torch.distributed.broadcast(tensor.data, 0)

    def advance(self) -> dict[str, Tensor]:
        """One step of the optimiser."""
        self.step += 1
        left = (self.phase.steps - self.step + 1) / (self.phase.steps / 3)
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        for group in groups:
            group["lr"] = group["peak"] * min(1.0, self.step / 100, left)
        parts = self.phase.losses(self.step)
        trained = [p for group in groups for p in group["params"]]
        for parameter in trained:
            parameter.grad = None
        torch.stack(list(parts.values())).sum().backward()
        _average(trained)
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
        return parts

    def save(self) -> None:
        from safetensors.torch import save_file

        if self.folder is None or _rank()[0] > 0:
            return
        with atomic_folder(self.folder) as staging:
            weights = {name: p.detach().contiguous() for name, p in self.modules.named_parameters()}
            save_file(weights, staging / "weights.safetensors")
            names = {id(p): name for name, p in self.modules.named_parameters()}
            moments = {
                f"{names[id(p)]}|{key}": value.contiguous()
                for optimiser in self.optimisers
                for p, entry in optimiser.state.items()
                for key, value in entry.items()
            }
            save_file(moments, staging / "moments.safetensors")
            (staging / "step.json").write_text(json.dumps(self.step), encoding="utf-8")

    def _load(self, folder: Path) -> None:
        from safetensors.torch import load_file

        parameters = dict(self.modules.named_parameters())
        weights = load_file(folder / "weights.safetensors")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(weights[name])
        for name, value in load_file(folder / "moments.safetensors").items():
            owner, key = name.split("|")
            self._owner(parameters[owner]).state[parameters[owner]][key] = value
        self.step = int(json.loads((folder / "step.json").read_text(encoding="utf-8")))

    def _owner(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        return next(
            optimiser
            for optimiser in self.optimisers
            if any(parameter is p for group in optimiser.param_groups for p in group["params"])
        )


def _optimisers(modules: nn.Module, phase: _Phase) -> list[torch.optim.Optimizer]:
    """AdamW, and if asked for Muon (Jordan et al., 2024) for the matrices of the layers."""
    inner = {
        id(p)
        for name, p in modules.named_parameters()
        if phase.muon and p.ndim == 2 and (".layers." in name or ".blocks." in name)
    }
    plain, matrices = (
        [
            {"params": [p for p in parameters if (id(p) in inner) is muon], "lr": rate, "peak": rate}
            for parameters, rate in phase.groups
        ]
        for muon in (False, True)
    )
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(plain, weight_decay=0.01, betas=(0.9, 0.98))]
    if inner:
        found.append(torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    return found


class _Log:
    """Mean losses since the last report."""

    def __init__(self, report: Callable[[int, dict[str, float]], None]) -> None:
        self.report = report
        self.began = time.monotonic()
        self.sums: dict[str, list[float]] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums.setdefault(name, []).append(float(value.detach()))

    def write(self, step: int, figures: dict[str, float]) -> None:
        means = {name: float(np.mean(values)) for name, values in self.sums.items()}
        self.sums = {}
        self.report(step, {**means, "seconds": time.monotonic() - self.began, **figures})


# Losses ------------------------------------------------------------------------------------------------------------


class _Dense(nn.Module):
    """Which findings lie under each image token; on which side and in which third of the lung a finding there is.

    With ``extents`` also where the box of the smallest finding there ends: a decoder that is to state boxes need then
    only find one of its tokens.

    A small finding has a small cross-entropy whatever the model does; each finding's loss is therefore taken relative
    to that of always answering its base rate, so that a broken clavicle counts as much as a large heart.
    """

    def __init__(self, width: int, pool: Pool, extents: bool = False) -> None:
        super().__init__()
        self.scale: Tensor
        self.weight: Tensor
        self.head = nn.Linear(width, len(FINDINGS))
        self.place = nn.Linear(width, 4)  # left, upper, mid, lower
        self.extent = nn.Linear(width, 4) if extents else None
        some = np.sort(np.random.default_rng(0).choice(len(pool), min(512, len(pool)), replace=False))
        share = self._target(np.array(pool.shares[some])).mean((0, 1)).clamp(1e-4, 0.5)
        entropy = -(share * share.log() + (1 - share) * (1 - share).log())
        self.register_buffer("scale", 0.05 / entropy)
        self.register_buffer("weight", (0.05 / share).sqrt().clamp(1.0, 8.0))
        with torch.no_grad():
            self.head.bias.copy_((share / (1 - share)).log())
        self.places = _places()

    def forward(self, tokens: Tensor, batch: _Batch) -> dict[str, Tensor]:
        target = self._target(batch.shares)
        dense = functional.binary_cross_entropy_with_logits(
            self.head(tokens), target, weight=self.scale, pos_weight=self.weight
        )
        losses = {"dense": dense, "place": 0.05 * self._place_loss(tokens, target, batch.cases)}
        if self.extent:
            wanted = _extents(batch)
            covered = torch.isfinite(wanted[..., 0])
            found = self.extent(tokens[covered])
            losses["extent"] = functional.smooth_l1_loss(found, wanted[covered], beta=0.05, reduction="mean") * 4
        return losses

    def _place_loss(self, tokens: Tensor, target: Tensor, cases: NDArray[np.int64]) -> Tensor:
        """At tokens under findings of a known place: side, and zone where it has one."""
        side, zone = (
            torch.from_numpy(part[np.arange(len(FINDINGS)), np.maximum(cases, 0)]) for part in self.places
        )  # (B, findings), -1 where there is none
        image, token, finding = (target > 0.5).nonzero(as_tuple=True)
        logits = self.place(tokens[image, token])
        sides, zones = side[image, finding], zone[image, finding]
        loss = logits.sum() * 0.0
        if bool((sides >= 0).any()):
            known = sides >= 0
            loss = loss + functional.binary_cross_entropy_with_logits(logits[known, 0], sides[known].float())
        if bool((zones >= 0).any()):
            known = zones >= 0
            loss = loss + functional.cross_entropy(logits[known, 1:], zones[known])
        return loss

    @staticmethod
    def _target(shares: NDArray[np.uint8]) -> Tensor:
        """(B, findings, CELLS, CELLS) -> (B, tokens, findings): three times the covered share, at most 1."""
        share = functional.avg_pool2d(torch.from_numpy(shares).float() / 255, CELLS // 16)
        return (share * 3).clamp(0, 1).flatten(2).transpose(1, 2)


def _extents(batch: _Batch) -> Tensor:
    """(B, tokens, 4) box of the smallest finding at each token, fractions of the side; NaN where there is none."""
    side = 16
    out = np.full((len(batch.cases), side, side, 4), np.nan, np.float32)
    for image, row in enumerate(batch.cases):
        boxes = [
            box
            for f in np.flatnonzero(row > 0)
            for box in evidence_boxes(batch.shares[image, f], FINDINGS[f], int(row[f]))
        ]
        for box in sorted(boxes, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1])):
            x1, y1, x2, y2 = box * side // CELLS + (0, 0, *((box[2:] * side % CELLS) > 0))
            out[image, y1:y2, x1:x2] = box / CELLS
    return torch.from_numpy(out).flatten(1, 2)


def _places() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Side (0 right, 1 left) and zone (0, 1, 2) of each case of each finding, -1 where it has none."""
    sides, zones = (np.full((len(FINDINGS), 8), -1) for _ in range(2))
    for finding, name in enumerate(FINDINGS):
        if "{side}" not in WORDINGS[name].present:
            continue
        for s, side in enumerate(("right", "left")):
            for z, zone in enumerate(("upper", "mid", "lower")):
                case = place_case(name, side, zone)
                sides[finding, case] = s
                if WORDINGS[name].zones:
                    zones[finding, case] = z
    return sides, zones


def _vision(model: Any) -> list[nn.Parameter]:
    """Parameters between the pixels and the image tokens."""
    parts = ("visual", "vision_tower", "multi_modal_projector")
    return [p for part in parts for p in getattr(model.model, part, nn.Module()).parameters()]


def _case(rows: list[Row], case: int) -> int:
    return min(int(case), len(rows) - 1)  # in direct mode every place is "Yes"


def _answer_loss(forward: ToyForward, cache: Any, chosen: list[Row], targets: Tensor | None = None) -> Tensor:
    """Cross-entropy of the answers' tokens; with ``targets`` (vocabulary, vocabulary) against its rows."""
    ids = pad_right([row.ids for row in chosen], 0)
    weights = torch.zeros(ids.shape)
    for index, row in enumerate(chosen):
        weights[index, : len(row.weights)] = torch.tensor(row.weights)
    # The answer's rows only: nothing else is predicted.
    states = forward.branches(cache, ids[:, :-1])
    wanted = weights[:, 1:] > 0
    logits = forward.model.lm_head(states[wanted])
    said = ids[:, 1:][wanted]
    loss = functional.cross_entropy(logits, said if targets is None else targets[said], reduction="none")
    weight = weights[:, 1:][wanted]
    return (loss * weight).sum() / weight.sum()


class _Requests:
    """Conversations that end in a request: a question, its canonical answer, the prompt, and the reply."""

    def __init__(self, forward: ToyForward, tokenizer: Any) -> None:
        self.forward, self.tokenizer = forward, tokenizer
        self.targets = soft_targets(tokenizer, forward.model.lm_head.weight.shape[0])
        self._asked: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._numbers = {
            token: int(text) for token in range(len(tokenizer)) if (text := tokenizer.decode([token]).strip()).isdigit()
        }

    def draw(self, sampler: _Sampler, batch: _Batch) -> list[Row]:
        """As many requests about each image as the recipe says; one in eight about a finding that is not there."""
        rng, rows = sampler.rng, []
        for image, cases in enumerate(batch.cases):
            present, absent = np.flatnonzero(cases > 0), np.flatnonzero(cases == 0)
            for _ in range(sampler.recipe.requests):
                there = len(present) > 0 and (rng.random() < 0.875 or not len(absent))
                finding = int(rng.choice(present if there else absent))
                kind = "marks" if batch.marks[image] else "boxes" if rng.random() < 0.8 else "phrases"
                mode = MODES[int(rng.integers(len(MODES)))]
                rows.append(self.row(batch, image, finding, kind, mode))
        return rows

    def row(self, batch: _Batch, image: int, finding: int, kind: str, mode: Mode) -> Row:
        """A request about one finding of an image, whose reply is ``[]`` where it is absent."""
        name, case = FINDINGS[finding], int(batch.cases[image, finding])
        shares = batch.shares[image, finding]
        if case <= 0:
            reply = "[]"
        elif kind == "boxes":
            reply = boxes_reply(evidence_boxes(shares, name, case))
        elif kind == "marks":
            assert batch.numbers is not None
            reply = marks_reply(shares, batch.numbers[image])
        else:
            reply = phrases_reply(name, case)
        answers = responses(name, mode)
        marks = batch.marks[image] if kind == "marks" else 0
        key = (question(name, mode), answers[min(case, len(answers) - 1)], request_prompt(kind, marks))
        if key not in self._asked:
            self._asked[key] = tuple(self.forward.conversations.branch(key, "")[0])
        asked = self._asked[key]
        said = self.tokenizer(reply + self.forward.conversations.turn_end, add_special_tokens=False)["input_ids"]
        # What decides something: numbers, words, whether there is one more; the punctuation follows by itself.
        weights = [1.0 if token in self._numbers or kind == "phrases" else 0.3 for token in said]
        return Row((*asked, *said), (*(0.0,) * len(asked), *weights), ())

    @torch.no_grad()
    def held_out(self, pool: Pool, parts: NDArray[np.uint8]) -> dict[str, float]:
        """On the held-out images: IoU of boxes, share of first marks that are right; what comes before is given."""
        overlaps, right = [], []
        for index in _chunks(range(0, HELD_OUT * GROUP, 2), 24):
            cases = pool.cases[index].astype(np.int64)
            frames = np.array(pool.frames[index])[..., None].repeat(3, -1)
            numbers, marks = zip(*(numbered(parts[i // GROUP]) for i in index.tolist()), strict=True)
            marked = np.stack([
                np.asarray(draw_marks(Image.fromarray(frame), [number == n for n in range(1, count + 1)]))
                for frame, number, count in zip(frames, numbers, marks, strict=True)
            ])  # fmt: skip
            shares = np.array(pool.shares[index])
            for kind, shown in (("boxes", frames), ("marks", marked)):
                batch = _Batch(shown, shares, cases, np.stack(numbers), marks)
                images = [i for i, row in enumerate(cases) if (row > 0).any()]
                present = [np.flatnonzero(cases[i] > 0) for i in images]
                rows = [
                    self.row(batch, i, int(there[int(index[i]) % len(there)]), kind, "direct")
                    for i, there in zip(images, present, strict=True)
                ]
                ids = pad_right([row.ids for row in rows], 0)
                cache = self.forward.prefix(self.forward.image_tokens(shown[images]))
                said = self.forward.model.lm_head(self.forward.branches(cache, ids[:, :-1])).argmax(-1)
                for row, found in zip(rows, said.tolist(), strict=True):
                    places = [p for p, w in enumerate(row.weights) if w == 1.0]
                    wanted = [self._numbers[row.ids[p]] for p in places]
                    given = [self._numbers.get(found[p - 1], -1) for p in places]
                    if kind == "boxes":
                        overlaps.append(_iou(wanted[:4], given[:4]))
                    elif wanted:
                        right.append(wanted[0] == given[0])
        return {"boxes iou": float(np.mean(overlaps)), "marks right": float(np.mean(right))}


def _iou(first: list[int], second: list[int]) -> float:
    width, height = (min(first[k + 2], second[k + 2]) - max(first[k], second[k]) for k in (0, 1))
    both = max(width, 0) * max(height, 0)
    areas = [max(b[2] - b[0], 0) * max(b[3] - b[1], 0) for b in (first, second)]
    return both / (sum(areas) - both)


# Figures on the way ------------------------------------------------------------------------------------------------


@torch.no_grad()
def seen(forward: ToyForward, dense: _Dense, pool: Pool) -> dict[str, float]:
    """How well the brightest spot of the dense head tells the held-out images with a finding from those without.

    The area under the ROC curve, ``{"seeing auc": mean, "seeing <finding>": ...}``.
    """
    scores = []
    for index in _chunks(range(HELD_OUT * GROUP), 24):
        logits = dense.head(forward.image_tokens(np.array(pool.frames[index])))
        scores.append(logits.amax(1).numpy())
    score, present = np.concatenate(scores), pool.cases[: HELD_OUT * GROUP] > 0
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
    for index in _chunks(range(HELD_OUT * GROUP), 24):
        cases = pool.cases[index]
        cache = forward.prefix(forward.image_tokens(np.array(pool.frames[index])))
        for mode in MODES:
            # "No" is what greedy decoding says if it takes every turn that the canonical "No" takes.
            negatives = [rows[mode][finding][0] for finding in range(len(FINDINGS))]
            ids = pad_right([row.ids for row in negatives] * len(index), 0)
            states = forward.branches(cache, ids)
            for n, state in enumerate(states):
                image, finding = divmod(n, len(FINDINGS))
                spots = list(negatives[finding].splits)
                said = model.lm_head(state[spots]).argmax(-1)
                no_said = bool((said == ids[n, [spot + 1 for spot in spots]]).all())
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
