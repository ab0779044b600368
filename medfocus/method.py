"""MedFocus as an attribution method: locate the concepts, remove each, keep the one that the answer rests on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from medfocus.cache import default_cache
from medfocus.intervention import Effects, boxes_of, effects, groups, variants
from medfocus.localizer import AnatomyLocalizer
from medfocus.vocabulary import in_vocabulary, require_vocabulary
from medground_bench.attribution.method import Attribution, method
from medground_bench.attribution.segmenters import resolve_segmenter
from medground_bench.causal.editors import load_editor
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medfocus.result import Transfer
    from medground_bench.causal.editors import Editor
    from medground_bench.lvlm import Episode, Lvlm

__all__ = [
    "Interventions",
    "MedFocus",
    "MedFocusParameters",
    "MultiAtlasParameters",
    "make_medfocus",
    "medfocus",
    "medfocus_multi_atlas",
]

_PAPER = "Rethinking Visual Attribution for Chest X-ray Reasoning in Large Vision Language Models (MedFocus)"


@dataclass(frozen=True)
class MedFocusParameters:
    """Parameters of ``medfocus``, the published procedure.

    Attributes
    ----------
    pool : str
        Folder of the reference pool (``pool.json``). ``"phantom"`` is the pool that ships with the project. It is
        made for phantoms; on 45 real radiographs its lung boxes reached a mean IoU of 0.82 with ``multi_atlas`` and
        0.58 with ``paper``. A pool of real references does better (0.90 for lungs): make one with
        ``medground-bench atlas``, or from your own radiographs.
    preset : {"paper", "multi_atlas"}
        How concepts are transferred.
    refiner : str
        What segments the regions: ``"litemedsam"``, a MedSAM checkpoint, the folder or hub id of a SamModel; ``"none"``
        leaves them; ``"auto"`` is LiteMedSAM where it is installed. Resolved when the parameters are made, to
        ``"litemedsam==<version>"`` or ``"none"``, so that what is recorded is what ran.
    solver : {"grid", "pot"}
        Of the preset ``paper``'s transport: this project's, or POT's dense one as a cross-check (the same boxes).
    tau : float
        A concept whose removal leaves at least this share of the response's probability does not matter.
    intervention : {"box", "mask", "edit"}
        What is removed: the concept's box, its pixels, or what an editor replaces inside its box.
    fill : {"black", "mean", "blur"}
        What removed pixels become.
    editor : str or None
        For ``intervention="edit"``: a counterfactual editor of :func:`medground_bench.causal.editors.load_editor`.
    prompt : str
        What the editor is told.
    seed : int
        Of the editor.
    composites : bool
        Also intervene on the composite groups (both lungs, ...).
    vocabulary : {"concepts", "zones"}
        What is intervened on: the paper's eleven concepts, or 26 finer zones that follow from them by geometry
        (:mod:`medground_bench.imaging.zones`).
    settings : mapping
        Settings of the preset to replace, e.g. ``{"epsilon": 0.01}``.
    cache : str
        Folder for localisations: ``"user"`` is the user's cache folder, ``"none"`` keeps nothing.
    """

    pool: str = "phantom"
    preset: str = "paper"
    refiner: str = "auto"
    solver: str = "grid"
    tau: float = 0.75
    intervention: str = "box"
    fill: str = "black"
    editor: str | None = None
    prompt: str = "No abnormality"
    seed: int = 0
    composites: bool = True
    vocabulary: str = "concepts"
    settings: Mapping[str, Any] = field(default_factory=dict)
    cache: str = "user"

    def __post_init__(self) -> None:
        object.__setattr__(self, "refiner", resolve_segmenter(self.refiner))
        require_vocabulary(self.vocabulary)
        if self.solver not in ("grid", "pot"):
            raise MethodError(f"unknown solver {self.solver!r}", expected="grid or pot")
        if self.solver == "pot" and self.preset != "paper":
            raise MethodError(f"POT cannot solve the transport of preset {self.preset!r}: too many points")


@dataclass(frozen=True)
class MultiAtlasParameters(MedFocusParameters):
    """Parameters of ``medfocus_multi_atlas``: those of ``medfocus`` with this project's transfer.

    It refines nothing unless told to: see the numbers in ``benchmarks/lung_localisation.py``.
    """

    preset: str = "multi_atlas"
    refiner: str = "none"


class MedFocus:
    """Concept-based causal attribution (paper, section 4).

    Parameters
    ----------
    localizer : AnatomyLocalizer
        Finds the concepts.
    tau, intervention, fill, editor, prompt, seed, composites, vocabulary
        See :class:`MedFocusParameters`; ``editor`` is an object with ``edit(image, mask, prompt, seed)``.

    Raises
    ------
    MethodError
        If tau is not a share.
    """

    def __init__(
        self,
        localizer: AnatomyLocalizer,
        *,
        tau: float = 0.75,
        intervention: Any = "box",
        fill: str = "black",
        editor: Editor | None = None,
        prompt: str = "No abnormality",
        seed: int = 0,
        composites: bool = True,
        vocabulary: str = "concepts",
    ) -> None:
        if not 0.0 <= tau <= 1.0:
            raise MethodError(f"tau={tau} is not a share of probability", expected="a number from 0 to 1")
        self.localizer = localizer
        self.tau = tau
        self._how = {"intervention": intervention, "fill": fill, "editor": editor, "prompt": prompt, "seed": seed}
        self._composites = composites
        self.vocabulary = vocabulary

    def attribute(self, lvlm: Lvlm, episode: Episode) -> Attribution:
        """Which anatomical concept the response rests on.

        The concepts are located on the native image (from the cache if it was seen before), each concept and group is
        removed from the frame, and all variants are scored with the original in one batch.

        Parameters
        ----------
        lvlm : Lvlm
            Scores the response.
        episode : Episode
            Image, question and response.

        Returns
        -------
        Attribution
            Boxes of the concept (of a composite: of its members) in native pixels, its name, the delta of every concept
            as its score, the drop of every token; the whole image and ``fallback`` where the answer rests on no
            concept. ``extras``: concept boxes, ratios, reference, preset, refiner.
        """
        return self.interventions(lvlm, episode).attribution(episode, self.localizer.preset)

    def interventions(self, lvlm: Lvlm, episode: Episode) -> Interventions:
        """Every concept located and removed, and what that does; one batch."""
        located = self.localizer.localise(np.asarray(episode.image))
        transfer = in_vocabulary(located, self.vocabulary, *episode.image.size)
        members = groups(tuple(transfer.concepts), self._composites)
        changed = variants(episode, transfer.concepts, members, **self._how)
        scores = lvlm.log_probs(episode, [episode.frame_array, *changed])
        result = effects(scores[0], dict(zip(members, scores[1:], strict=True)), self.tau)
        return Interventions(transfer, members, np.asarray(scores[0], np.float64), result)


@dataclass(frozen=True, eq=False)
class Interventions:
    """The concepts of an image, and what removing each does to the response.

    Attributes
    ----------
    transfer : Transfer
        Where the concepts are.
    members : mapping of str to tuple of str
        Concept or composite group -> the concepts that were removed together.
    original : ndarray, (T,)
        The tokens' log-probabilities on the original image.
    result : Effects
        Of every member.
    """

    transfer: Transfer
    members: Mapping[str, tuple[str, ...]]
    original: np.ndarray
    result: Effects

    def attribution(self, episode: Episode, preset: str) -> Attribution:
        """The published answer: the concept of the largest effect, or the whole image."""
        transfer, result = self.transfer, self.result
        width, height = episode.image.size
        whole = (0.0, 0.0, float(width), float(height))
        return Attribution(
            boxes=[whole] if result.fallback else boxes_of(transfer.concepts, self.members[result.best]),
            concept=None if result.fallback else result.best,
            concept_scores=result.deltas,
            token_scores=result.drops[result.best],
            fallback=result.fallback,
            extras={
                "concept_boxes": {concept: list(box) for concept, box in transfer.boxes.items()},
                "ratios": result.ratios,
                "strongest": result.best,
                "reference": transfer.reference,
                "preset": preset,
                "refiner": transfer.details.get("refiner"),
                "log_prob": float(self.original.sum()),
            },
        )


@lru_cache(maxsize=4)
def _localizer(pool: str, preset: Any, refiner: str | None, settings: str, cache: str | None) -> AnatomyLocalizer:
    """Localizers are costly to make and the same for all records of a run."""
    return AnatomyLocalizer(pool, preset, refiner, json.loads(settings), cache)


def make_medfocus(parameters: MedFocusParameters) -> MedFocus:
    """The procedure with its parameters; its localizer is shared by all records of a run."""
    p = parameters
    editor = None
    if p.intervention == "edit" and p.editor is not None:
        editor = load_editor(p.editor) if isinstance(p.editor, str) else p.editor
    folder = {"user": str(default_cache()), "none": None}.get(p.cache, p.cache)
    solver = {"solver": p.solver} if p.solver != "grid" else {}
    settings = json.dumps({**p.settings, **solver}, sort_keys=True)
    refiner = None if p.refiner == "none" else p.refiner
    localizer = _localizer(str(p.pool), p.preset, refiner, settings, folder)
    return MedFocus(
        localizer,
        tau=p.tau,
        intervention=p.intervention,
        fill=p.fill,
        editor=editor,
        prompt=p.prompt,
        seed=p.seed,
        composites=p.composites,
        vocabulary=p.vocabulary,
    )


def _run(lvlm: Lvlm, episode: Episode, parameters: MedFocusParameters) -> Attribution:
    attribution = make_medfocus(parameters).attribute(lvlm, episode)
    return dataclasses.replace(attribution, extras={**attribution.extras, "pool": str(parameters.pool)})


@method(
    "medfocus",
    family="concept",
    parameters=MedFocusParameters,
    needs=("references", "segmenter"),
    cost="16 F + localisation",
    reference=_PAPER,
)
def medfocus(lvlm: Lvlm, episode: Episode, parameters: MedFocusParameters) -> Attribution:
    """The published MedFocus: one reference, intensity transport, MedSAM, box interventions."""
    return _run(lvlm, episode, parameters)


@method(
    "medfocus_multi_atlas",
    family="concept",
    parameters=MultiAtlasParameters,
    needs=("references",),
    cost="16 F + localisation",
    reference=_PAPER + ", with this project's multi-atlas transport",
)
def medfocus_multi_atlas(lvlm: Lvlm, episode: Episode, parameters: MultiAtlasParameters) -> Attribution:
    """MedFocus with concepts from many registered references and transport of position and appearance."""
    return _run(lvlm, episode, parameters)
