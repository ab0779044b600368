"""LVLMs whose reasons are known, and a plain loop that judges candidates the slow way."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from medground_bench.causal.answers import read_answer
from medground_bench.causal.filter import edit_seed
from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import Candidate, question
from medground_bench.imaging.read import read_image
from medground_bench.lvlm import Generated

if TYPE_CHECKING:
    from medground_bench.sources.phantom import Phantom

MARKER = 8
_ATTRIBUTE = re.compile(r"evidence of (.*) in the image\?")


class Planted:
    """Counts what it is asked."""

    revision: str | None = "planted-1"
    # What the commands look at to choose threads.
    family, device, model = "planted", torch.device("cpu"), torch.nn.Linear(1, 1)

    def __init__(self, key: str, pause: float = 0.0) -> None:
        self.key = key
        self.asked = 0
        self.calls = 0
        self.pause = pause

    def generate(self, images: Sequence[Any], questions: Sequence[str], max_new_tokens: int = 32) -> list[Generated]:
        assert len(images) == len(questions)
        self.asked += len(images)
        self.calls += 1
        time.sleep(self.pause)
        return [
            Generated(self.answer(image, _ATTRIBUTE.search(text)[1], "step by step" in text))  # type: ignore[index]
            for image, text in zip(images, questions, strict=True)
        ]

    def answer(self, image: Image.Image, attribute: str, reason: bool) -> str:
        raise NotImplementedError


def phrase(yes: bool, attribute: str, reason: bool) -> str:
    if not reason:
        return "Yes." if yes else "No\n"
    seen = f"There is evidence of {attribute}." if yes else f"I do not see any sign of {attribute}."
    return f"The lungs and heart were inspected. {seen}\n\nAnswer: **{'Yes' if yes else 'No'}**"


class Causal(Planted):
    """Looks at the finding itself: is the image, where the finding is, the phantom with it or without it?"""

    def __init__(self, phantoms: Sequence[Phantom], key: str = "causal") -> None:
        super().__init__(key)
        self.phantoms = phantoms

    def answer(self, image: Image.Image, attribute: str, reason: bool) -> str:
        pixels = np.asarray(image, float)
        same = [p for p in self.phantoms if p.image.shape == pixels.shape]
        phantom = min(same, key=lambda p: np.abs(p.image - pixels).mean())
        findings = [f for f in phantom.findings if f.attribute == attribute]
        if not findings:
            return phrase(False, attribute, reason)
        mask = findings[0].mask
        present = np.abs(phantom.image.astype(float) - pixels)[mask].mean()
        absent = np.abs(phantom.without(attribute).image.astype(float) - pixels)[mask].mean()
        return phrase(present < absent, attribute, reason)


class Spurious(Planted):
    """Answers from a white marker in the corner, whatever the finding."""

    def answer(self, image: Image.Image, attribute: str, reason: bool) -> str:
        corner = np.asarray(image.convert("L"), float)[:MARKER, :MARKER]
        return phrase(bool(corner.mean() > 200), attribute, reason)


class Whimsical(Planted):
    """Answers by the hash of what it sees: every path through the gates occurs, undecided answers among them."""

    def __init__(self, key: str = "whimsical", pause: float = 0.0, yes: int = 65, no: int = 90) -> None:
        super().__init__(key, pause)
        self.yes, self.no = yes, no

    def answer(self, image: Image.Image, attribute: str, reason: bool) -> str:
        digest = hashlib.sha256(f"{self.key}{attribute}{reason}".encode() + image.tobytes()).digest()
        value = digest[0] % 100
        if value >= self.no:
            return "It cannot be determined."
        return phrase(value < self.yes, attribute, reason)


class Refusing(Whimsical):
    """Cannot be asked about one attribute: the whole batch fails with it."""

    def generate(self, images: Sequence[Any], questions: Sequence[str], max_new_tokens: int = 32) -> list[Generated]:
        if any("nodule" in text for text in questions):
            raise LvlmError("the processor refuses this image")
        return super().generate(images, questions, max_new_tokens)


def mark_corners(root: Path) -> None:
    """Put the spurious marker into every image of a phantom set."""
    for path in sorted((root / "images").glob("*.png")):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[:MARKER, :MARKER] = 255
        Image.fromarray(pixels).save(path)


def brute_force(lvlm: Any, mode: str, candidate: Candidate, editor: Any, seed: int = 0) -> dict[str, Any]:
    """All four questions, one image at a time, without cache, batch or early end."""
    image = read_image(candidate.image_path)
    editor.bind(candidate, image)
    width, height = image.size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    inside = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in candidate.boxes:
        inside |= (x + 1 > x1) & (x < x2) & (y + 1 > y1) & (y < y2)
    number = edit_seed(seed, candidate)
    pictures = [
        image,
        editor.edit(image, inside, f"No {candidate.attribute}", number),
        editor.edit(image, ~inside, f"No {candidate.attribute}", number),
        editor.edit(image, ~inside, "No abnormality", number),
    ]
    answers = [lvlm.generate([p], [question(candidate.attribute, mode)])[0].text for p in pictures]
    gates = ("correct", "foreground", "background", "background_normal")
    wrong = [
        g
        for g, a, e in zip(gates, answers, ("yes", "no", "yes", "yes"), strict=True)
        if read_answer(a, candidate.attribute) != e
    ]
    return {"answers": answers, "gate": wrong[0] if wrong else None}


def essence(line: dict[str, Any]) -> tuple[Any, ...]:
    """What must not depend on how the work was done."""
    return (line["dataset"], line["image_id"], line["attribute"], line["gate"], tuple(line["answers"].values()))
