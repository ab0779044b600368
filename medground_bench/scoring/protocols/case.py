"""One record of a submission as a protocol sees it, and the LVLM's cached view of that record."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medground_bench.attribution.fills import compose, fill_frame
from medground_bench.attribution.method import Method, MethodLike, as_method
from medground_bench.attribution.regions import box_masks
from medground_bench.causal.answers import Answer, read_answer
from medground_bench.causal.cache import EditCache
from medground_bench.causal.editors.base import Editor, EditRequest
from medground_bench.causal.filter import MAX_NEW_TOKENS, edit_seed
from medground_bench.causal.masks import box_mask
from medground_bench.core.errors import EditorError, MedGroundError, MethodError
from medground_bench.core.files import sha256_of, within
from medground_bench.core.schema import Box, Candidate
from medground_bench.imaging import Letterbox, clip_boxes, resize_heatmap
from medground_bench.imaging.areas import record_areas
from medground_bench.imaging.overlap import score_boxes
from medground_bench.lvlm.store import Store, unknown, variant_key
from medground_bench.scoring.agreement import second_opinions
from medground_bench.scoring.heatmaps import HeatmapScores, score_heatmap
from medground_bench.scoring.protocols.protocol import Protocol, Skip

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.attribution.results import Attribution
    from medground_bench.dataset.columns import Record
    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.sources import Source
    from medground_bench.submission import Prediction, Submission

__all__ = ["Case", "Count", "Probe", "Trial"]


@dataclass
class Count:
    """What was spent.

    Attributes
    ----------
    passes : int
        Variants that the LVLM scored or answered.
    found : int
        Variants whose score or answer was in the cache.
    runs : int
        Runs of the submission's method.
    """

    passes: int = 0
    found: int = 0
    runs: int = 0

    def __sub__(self, other: Count) -> Count:
        return Count(self.passes - other.passes, self.found - other.found, self.runs - other.runs)

    def __add__(self, other: Count) -> Count:
        return Count(self.passes + other.passes, self.found + other.found, self.runs + other.runs)


class Probe:
    """An image, a question and a response as an LVLM sees them: variants are scored and answered once.

    Parameters
    ----------
    lvlm : Lvlm
        Who scores.
    image : PIL image
        The native radiograph.
    question, response, attribute : str
        What was asked, what was answered, and which finding the answer is about.
    side : int or None
        Side of the frame.
    mode : str
        Decides how long an answer may be.
    store : Store
        What is known already.
    count : Count
        Counts what is spent.
    """

    def __init__(
        self,
        lvlm: Lvlm,
        image: Image,
        question: str,
        response: str,
        *,
        attribute: str,
        side: int | None,
        mode: str,
        store: Store,
        count: Count,
    ) -> None:
        self.lvlm, self.image, self.question, self.response = lvlm, image, question, response
        self.attribute, self.side, self.mode = attribute, side, mode
        self._store, self._count = store, count

    def other(
        self,
        image: Image | None = None,
        question: str | None = None,
        response: str | None = None,
        *,
        store: Store | None = None,
    ) -> Probe:
        """The same with another image, question or response; with a store of its own where the LVLM is changed."""
        return Probe(
            self.lvlm,
            self.image if image is None else image,
            self.question if question is None else question,
            self.response if response is None else response,
            attribute=self.attribute,
            side=self.side,
            mode=self.mode,
            store=self._store if store is None else store,
            count=self._count,
        )

    @cached_property
    def episode(self) -> Episode:
        """The prepared input."""
        return self.lvlm.prepare(self.image, self.question, self.response, side=self.side)

    @cached_property
    def frame(self) -> np.ndarray:
        """(H, W) or (H, W, 3) uint8."""
        return self.episode.frame_array

    @property
    def letterbox(self) -> Letterbox:
        return self.episode.letterbox

    def framed(self, image: Image, letterbox: Letterbox | None = None) -> np.ndarray:
        """A native image in this frame, or in one of its own, as the LVLM gets it."""
        frame = np.asarray((letterbox or self.letterbox).apply(image))
        return frame if frame.ndim == self.frame.ndim else np.repeat(frame[..., None], 3, axis=-1)

    def reframed(self, frame: np.ndarray) -> Probe:
        """The same with a frame in place of its image: letterboxing it again changes nothing."""
        from PIL import Image as pil

        return self.other(image=pil.fromarray(frame))

    @property
    def content(self) -> np.ndarray:
        """The part of the frame that is the image, without the letterbox's bars."""
        x1, y1, x2, y2 = self.letterbox.content
        return self.frame[y1:y2, x1:x2]

    def with_content(self, values: np.ndarray) -> np.ndarray:
        """The frame with other grey levels in place of :attr:`content`, rounded once."""
        x1, y1, x2, y2 = self.letterbox.content
        out = self.frame.copy()
        out[y1:y2, x1:x2] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        return out

    def filled(self, fill: str) -> np.ndarray:
        """The frame with nothing left."""
        return fill_frame(fill, self.episode)

    def without(self, masks: np.ndarray, fill: str) -> np.ndarray:
        """Variants of the frame with masks (N, H, W) filled."""
        return compose(self.frame, masks, self.filled(fill))

    def mask_of(self, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """(H, W) bool: pixels of the frame whose centres lie in any of the native boxes."""
        height, width = self.frame.shape[:2]
        inside = box_masks(self.letterbox.to_frame(boxes), height, width)
        return np.logical_or.reduce(inside, axis=0) if len(inside) else np.zeros((height, width), bool)

    def scores(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Log-probabilities of the response's tokens under variants of the frame, (N, T)."""
        scores, made = self._store.log_probs(self.lvlm.log_probs, self.episode, frames)
        self._count.passes += made
        self._count.found += len(scores) - made
        return scores.astype(np.float64)

    def confidence(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Geometric mean probability of the response's tokens, ``exp(s / T)``, (N,)."""
        scores = self.scores(frames)
        return np.exp(scores.mean(axis=1)) if len(scores) else np.zeros(0)

    def answers(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[Answer | None]:
        """What the LVLM answers to variants of the frame: yes, no, or None where nothing decides."""
        from PIL import Image as pil

        keys = [variant_key(frame, self.question) for frame in frames]
        missing = unknown(keys, self._store.answers)
        if missing:
            # A frame is letterboxed already: it is given as it is.
            said = self.lvlm.generate(
                [pil.fromarray(frames[k]) for k in missing],
                [self.question] * len(missing),
                MAX_NEW_TOKENS[self.mode],
                side=None,
            )
            self._store.answers.update({keys[k]: (g.text, g.ended) for k, g in zip(missing, said, strict=True)})
        self._count.passes += len(missing)
        self._count.found += len(keys) - len(missing)
        found = (self._store.answers[key] for key in keys)
        return [read_answer(text, self.attribute, cut=not ended) for text, ended in found]

    def texts(self, frames: Sequence[np.ndarray] | np.ndarray) -> list[str]:
        """The answers as texts."""
        self.answers(frames)
        return [self._store.answers[variant_key(frame, self.question)][0] for frame in frames]

    @cached_property
    def answer(self) -> Answer:
        """What the stored response says.

        Raises
        ------
        Skip
            If nothing in it decides.
        """
        said = read_answer(self.response, self.attribute)
        if said is None:
            raise Skip("the response decides nothing")
        return said

    def kept(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Whether the answer to each variant is that of the response, (N,) float."""
        return np.array([float(said == self.answer) for said in self.answers(frames)])

    def flipped(self, frames: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Whether the answer to each variant is the opposite of the response's, (N,) float."""
        opposite = "no" if self.answer == "yes" else "yes"
        return np.array([float(said == opposite) for said in self.answers(frames)])


@dataclass(eq=False)
class Trial:
    """A submission under evaluation, and what there is to evaluate it with.

    Attributes
    ----------
    submission : Submission
        The opened folder.
    predictions : mapping of str to Prediction
        Its rows.
    records : mapping of str to Record
        The records it answers.
    lvlm, editor : object or None
        Where they were given.
    sources : sequence of Source
        What else is known of the records.
    methods : mapping of str to method
        Methods that are not registered.
    count : Count
        What was spent so far.
    edits : path or None
        Where edits of an editor that is not exact are kept.
    """

    submission: Submission
    predictions: Mapping[str, Prediction]
    records: Mapping[str, Record]
    lvlm: Lvlm | None = None
    editor: Editor | None = None
    sources: Sequence[Source] = ()
    methods: Mapping[str, MethodLike] = field(default_factory=dict)
    count: Count = field(default_factory=Count)
    edits: Any = None

    @cached_property
    def identity(self) -> str:
        """Checksum of all that is evaluated: method, settings, predictions and heat maps."""
        header = self.submission.header
        digest = hashlib.sha256(json.dumps([header["method"], self.settings], sort_keys=True).encode())
        digest.update(self.submission.digest().encode())
        for name in sorted({p.heatmap for p in self.predictions.values() if p.heatmap}):
            digest.update(f"{name}\0{sha256_of(within(self.submission.path, name))}".encode())
        return digest.hexdigest()[:32]

    @property
    def name(self) -> str:
        """The method's name."""
        return str(self.submission.header["method"])

    @property
    def registered(self) -> str:
        """The method that it is, or is a variant of."""
        return str(self.settings.get("variant_of", self.name))

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the submission."""
        return self.submission.settings

    @cached_property
    def method(self) -> tuple[Method, Any]:
        """The submission's method and its parameters.

        Raises
        ------
        MethodError
            If it is not installed.
        """
        found = as_method(self.methods.get(self.name, self.registered))
        known = {f.name for f in dataclasses.fields(found.parameters)}
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in self.settings.items() if k in known}
        return found, found.make_parameters(given)

    @cached_property
    def candidates(self) -> Mapping[str, Candidate]:
        """Record id -> what the sources know of it."""
        by_id = {candidate.id: candidate for source in self.sources for candidate in source}
        found = {key: by_id.get(key.split("/", 2)[-1]) for key in self.records}
        return {key: candidate for key, candidate in found.items() if candidate is not None}

    @cached_property
    def readings(self) -> Mapping[str, tuple[Box, ...]]:
        """Record id -> boxes of a second annotator, where another source marks the same finding on the same image."""
        records = list(self.records.values())
        found = second_opinions(records, chain(records, *self.sources))
        return {r.id: boxes for r, boxes in zip(records, found, strict=True) if boxes is not None}

    @cached_property
    def same_image(self) -> Mapping[tuple[str, str], list[str]]:
        """(dataset, image) -> ids of its records."""
        out: dict[tuple[str, str], list[str]] = {}
        for key, record in self.records.items():
            out.setdefault((record.dataset, record.image_id), []).append(key)
        return out

    def patients(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        """Whose records these are."""
        return [(self.records[key].dataset, self.records[key].patient_id) for key in keys]

    def others(self, record: Record) -> list[Record]:
        """The records of other patients."""
        mine = (record.dataset, record.patient_id)
        return [r for r in self.records.values() if (r.dataset, r.patient_id) != mine]

    def run(self, probe: Probe, **overrides: Any) -> Attribution:
        """The submission's method on an input."""
        found, parameters = self.method
        self.count.runs += 1
        return found.run(probe.lvlm, probe.episode, dataclasses.replace(parameters, **overrides))

    def missing(self, protocol: Protocol) -> str | None:
        """What the protocol needs and this submission or run does not have, in one line; None where all is there."""
        needs = protocol.needs
        header = self.submission.header
        if "heatmaps" in needs and not any(p.heatmap for p in self.predictions.values()):
            return "the submission has no heat maps"
        if "masks" in needs and not any(p.masks for p in self.predictions.values()):
            return "the submission has no masks"
        if "signed" in needs and not self.submission.signed:
            return "its heat maps are not signed (settings.signed)"
        if "reason" in needs and header["mode"] != "reason":
            return f"it is about records of mode 'reason', the submission of mode {header['mode']!r}"
        if {"lvlm", "weights"} & set(needs):
            if self.lvlm is None:
                return f"the LVLM {header['lvlm']} is needed (--lvlm)"
            if self.lvlm.key != header["lvlm"]:
                return f"the submission is for LVLM {header['lvlm']}, not for {self.lvlm.key}"
        if "editor" in needs and self.editor is None:
            return "a counterfactual editor is needed (--editor)"
        if "sources" in needs and not self.candidates:
            return "no source knows its records (--source NAME=DIR)"
        if "method" in needs:
            try:
                _ = self.method
            except MethodError as error:
                return f"its method has to be run again, and cannot: {error.message}"
        return None


@dataclass(eq=False)
class Case:
    """One record of a submission.

    Attributes
    ----------
    record : Record
        What was asked, and where the evidence is.
    prediction : Prediction
        What the submission says.
    trial : Trial
        The submission.
    store : Store
        The record's cache.
    """

    record: Record
    prediction: Prediction
    trial: Trial
    store: Store

    @cached_property
    def probe(self) -> Probe:
        """The LVLM's view of the record."""
        assert self.trial.lvlm is not None  # the protocol said that it needs one
        return Probe(
            self.trial.lvlm,
            self.record.image,
            self.record.question,
            self.record.response or "",
            attribute=self.record.attribute,
            side=self.trial.submission.side,
            mode=self.record.mode or "direct",
            store=self.store,
            count=self.trial.count,
        )

    def beside(self, key: str) -> Case:
        """Another record of the submission."""
        return Case(self.trial.records[key], self.trial.predictions[key], self.trial, self.store)

    @cached_property
    def letterbox(self) -> Letterbox:
        """Native pixels <-> frame."""
        return self.trial.submission.letterbox(self.record.size)

    @cached_property
    def heatmap(self) -> np.ndarray:
        """The submission's heat map over the frame, (h, w) float64, any resolution.

        Raises
        ------
        Skip
            If there is none, it is constant or not finite, or it does not lie over the frame.
        """
        heat = self.trial.submission.heatmap(self.prediction)
        if heat is None:
            raise Skip("no heat map")
        return self.checked(heat)

    def checked(self, heat: np.ndarray | None) -> np.ndarray:
        """A heat map as it can be evaluated (see :attr:`heatmap`)."""
        if heat is None:
            raise Skip("no heat map")
        values = np.asarray(heat, np.float64)
        box = self.letterbox
        shape = box.frame_height / box.frame_width
        if not 0.95 < values.shape[0] / values.shape[1] / shape < 1.05:
            raise Skip(
                f"a heat map of {values.shape[0]} x {values.shape[1]} is not over the frame of "
                f"{box.frame_height} x {box.frame_width}"
            )
        if not np.isfinite(values).all() or np.ptp(values) == 0:
            raise Skip("a constant heat map, or one that is not finite")
        return values

    def again(self, probe: Probe, **overrides: Any) -> np.ndarray:
        """The heat map of the submission's method on another input, as :attr:`heatmap` has it.

        Raises
        ------
        Skip
            If the map names nothing there.
        """
        return self.checked(self.trial.run(probe, **overrides).heatmap)

    def judged(self, heat: np.ndarray, boxes: Sequence[Sequence[float]] | None = None) -> HeatmapScores:
        """A heat map against the evidence, or against other native boxes."""
        return score_heatmap(heat, self.letterbox, self.record.boxes if boxes is None else boxes)

    def overlap(self, boxes: Sequence[Sequence[float]]) -> dict[str, float]:
        """Boxes against the evidence: ``iou``, ``f1``, and the share of the image that is ``evidence``."""
        record = self.record
        truth = clip_boxes(record.boxes, *record.size).tolist()
        scores = score_boxes([boxes], [truth])
        area = record_areas([truth], [truth]).evidence[0] / (record.width * record.height)
        return {"iou": float(scores.iou[0]), "f1": float(scores.f1[0]), "evidence": float(area)}

    def over_frame(self, heat: np.ndarray) -> np.ndarray:
        """A heat map in pixels of the frame."""
        box = self.letterbox
        return np.asarray(resize_heatmap(heat, (box.frame_height, box.frame_width)), np.float64)

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers that are the record's, whatever the method, so that random variants are shared."""
        digest = hashlib.sha256(f"{self.record.id}\0{purpose}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def edit(self, masks: Sequence[np.ndarray], prompt: str) -> list[np.ndarray]:
        """The record's image edited inside native masks, in the frame.

        Raises
        ------
        EditorError
            If the editor fails.
        """
        editor = self.trial.editor
        assert editor is not None  # the protocol said that it needs one
        image = self.record.image
        seed = edit_seed(0, cast("Any", self.record))
        if (candidate := self.trial.candidates.get(self.record.id)) is not None:
            editor.bind(candidate, image)
        requests = [EditRequest(image, mask, prompt, seed) for mask in masks]
        if editor.exact or self.trial.edits is None:
            outcomes = editor.edit_batch(requests)
        else:
            outcomes = EditCache(editor, self.trial.edits).edit_batch(requests)
        for outcome in outcomes:
            if isinstance(outcome, EditorError):
                raise outcome
        return [self.probe.framed(cast("Image", outcome)) for outcome in outcomes]

    def native_mask(self, boxes: Sequence[Box]) -> np.ndarray:
        """(height, width) bool: native pixels that any of the boxes touches; empty where none does."""
        try:
            return box_mask(boxes, self.record.size)
        except MedGroundError:
            width, height = self.record.size
            return np.zeros((height, width), bool)
