"""Randomisation: whether a map changes when the model forgets what it has learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.scoring.protocols.maps import alike, coarser, ssim
from medground_bench.scoring.protocols.protocol import Measure, Skip, Table, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["RandomisationParameters", "randomisation"]

_PARTS = ("head", "decoder", "projector", "vision")
_INDEPENDENT = 0.9


@dataclass(frozen=True)
class RandomisationParameters:
    """Options.

    Attributes
    ----------
    seed : int
        Of the order that the weights get.
    top_down : bool
        Whether weights are shuffled from the answer down, too: 2 runs.
    quarters : bool
        Whether they are also shuffled by quarters of decoder and vision tower, in the same orders, for a table: 13
        runs, 6 more with ``top_down``.
    noisy : int
        Noisy images over which maps are averaged before they are compared (smooth MPRT): twice as many runs.
    grain : float
        Standard deviation of that noise, grey levels.
    """

    seed: int = 0
    top_down: bool = False
    quarters: bool = False
    noisy: int = 0
    grain: float = 8.0

    def __post_init__(self) -> None:
        if self.noisy < 0 or self.grain <= 0:
            raise ValueError("noisy must not be negative, grain must be positive")


def entropy(heat: np.ndarray, bins: int = 100) -> float:
    """Entropy in nats of a map's histogram (Hedstroem et al. 2024)."""
    counts, _ = np.histogram(heat, bins)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: Any) -> Sequence[Table]:
    names = dict.fromkeys(name for row in values.values() for name in row if name.startswith("_step"))
    rows = []
    for order, step in (name.split()[1:] for name in names):
        found = [row for row in values.values() if np.isfinite(row.get(f"_step {order} {step}", np.nan))]
        if found:
            means = {k: float(np.mean([row[f"{n} {order} {step}"] for row in found])) for k, n in _COLUMNS.items()}
            rows.append({"order": order.replace("_", " "), "shuffled last": step, "records": len(found), **means})
    return [Table("shuffled by quarters: similarity with the submitted map", rows)] if rows else []


_COLUMNS = {"spearman": "_step", "ssim": "_ssim"}


@protocol(
    "randomisation",
    asks="Does the map change when the model's weights are shuffled?",
    measures=[
        Measure("model_independent", "maps with a similarity above 0.9 under the wholly random model", "low", (0, 1)),
        Measure("similarity", "rank correlation with the map of the wholly random model", "", (-1, 1)),
        Measure("similarity_absolute", "the same of the maps' absolute values", "", (-1, 1)),
        Measure("similarity_ssim", "structural similarity with the map of the wholly random model", "", (-1, 1)),
        Measure("similarity_smooth", "rank correlation of maps averaged over noisy images", "", (-1, 1)),
        *(Measure(f"only_{part}", f"with the {part} alone shuffled", "", (-1, 1)) for part in _PARTS),
        Measure("bottom_up_vision_projector", "with everything below the decoder shuffled", "", (-1, 1)),
        Measure("bottom_up_decoder", "with everything but the head shuffled", "", (-1, 1)),
        Measure("top_down_decoder", "with head and decoder shuffled", "", (-1, 1)),
        Measure("top_down_projector", "with everything but the vision tower shuffled", "", (-1, 1)),
        Measure("entropy_gain", "relative gain of the map's entropy by randomising", ""),
        Measure("degenerate", "maps of the random model that name nothing", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "weights", "method"),
    parameters=RandomisationParameters,
    cost="7 runs of the method; 2 with top_down, 13 to 19 with quarters, 2 x noisy",
    reference="model parameter randomisation (Adebayo et al. 2018); entropy and noise: eMPRT, sMPRT (Hedstroem et al. "
    "2024)",
    note="a check to pass or to fail, never a ranking: methods that multiply with activations stay similar though "
    "faithful, above all from the answer down, where lower layers stay intact, and noisy maps change most (Binder et "
    "al. 2023). Read it beside the controls sobel and random_map.",
    summarise=_tables,
)
def randomisation(case: Case, parameters: RandomisationParameters) -> Mapping[str, float]:
    """Weights are shuffled part by part: all of them, each part alone, from the image up and from the answer down."""
    heat, found = case.heatmap, _Shuffled(case, parameters.seed)
    orders = {
        **{f"only_{part}": (part,) for part in _PARTS},
        "bottom_up_vision_projector": ("vision", "projector"),
        "bottom_up_decoder": ("vision", "projector", "decoder"),
    }
    if parameters.top_down:
        orders |= {"top_down_decoder": ("head", "decoder"), "top_down_projector": ("head", "decoder", "projector")}
    out = {}
    changed = found.map(_PARTS)
    out["degenerate"] = float(changed is None)
    if changed is not None:
        out["similarity"] = alike(heat, changed)["spearman"]
        out["similarity_absolute"] = alike(np.abs(heat), np.abs(changed))["spearman"]
        out["similarity_ssim"] = ssim(*coarser(heat, changed))
        out["model_independent"] = float(out["similarity"] > _INDEPENDENT)
        before = entropy(heat)
        if before > 0:
            out["entropy_gain"] = (entropy(changed) - before) / before
    for name, parts in orders.items():
        if (changed := found.map(parts)) is not None:
            out[name] = alike(heat, changed)["spearman"]
    if parameters.quarters:
        for order, step, parts in _cascades(found.quarters, parameters.top_down):
            if (changed := found.map(parts)) is not None:
                out[f"_step {order} {step}"] = alike(heat, changed)["spearman"]
                out[f"_ssim {order} {step}"] = ssim(*coarser(heat, changed))
    if parameters.noisy and (smooth := _smooth(case, parameters)) is not None:
        out["similarity_smooth"] = smooth
    return out


def _cascades(quarters: Sequence[str], top_down: bool) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(order, what is shuffled last, all that is shuffled) of every step; ``quarters`` from the answer down."""
    for k, part in enumerate(quarters):
        yield "independent", part, (part,)
        yield "bottom_up", part, tuple(quarters[k:])
        if top_down:
            yield "top_down", part, tuple(quarters[: k + 1])


class _Shuffled:
    """Maps under shuffled weights, each made once; None where the map names nothing."""

    def __init__(self, case: Case, seed: int) -> None:
        from medground_bench.lvlm.randomise import parameter_groups

        self.case, self.seed = case, seed
        groups = parameter_groups(case.probe.lvlm, quarters=True)
        self.quarters = [name for name, parameters in groups.items() if parameters]
        self._made: dict[frozenset[str], np.ndarray | None] = {}

    def map(self, parts: Sequence[str]) -> np.ndarray | None:
        """The method's map with these parts shuffled."""
        from medground_bench.lvlm.randomise import shuffled

        key = frozenset(q for q in self.quarters if q in parts or q.rpartition("_")[0] in parts)
        if key not in self._made:
            try:
                with shuffled(self.case.probe.lvlm, parts, self.seed):
                    self._made[key] = self.case.again(self.case.probe)
            except Skip:
                self._made[key] = None
        return self._made[key]


def _smooth(case: Case, parameters: RandomisationParameters) -> float | None:
    """Rank correlation of the mean map over noisy images with that of the wholly random model."""
    from medground_bench.lvlm.randomise import shuffled

    probe, rng = case.probe, case.rng("smooth")
    grain = rng.normal(0, parameters.grain, (parameters.noisy, *probe.content.shape[:2]))
    noisy = [
        probe.reframed(probe.with_content(probe.content + (g if probe.content.ndim == 2 else g[..., None])))
        for g in grain
    ]

    def mean() -> np.ndarray:
        maps = [case.again(one) for one in noisy]
        return np.asarray(np.mean([heat / np.abs(heat).max() for heat in maps], axis=0))

    try:
        before = mean()
        with shuffled(probe.lvlm, _PARTS, parameters.seed):
            return alike(before, mean())["spearman"]
    except Skip:
        return None
