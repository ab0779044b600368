"""Set-of-Mark prompting: regions are outlined and numbered, and the LVLM names those its answer rests on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.marks import draw_marks, read_numbers
from baselines.shared.prompts import ask, marks_prompt
from medground_bench.attribution.method import Attribution, method
from medground_bench.attribution.regions import REST, named_regions
from medground_bench.causal.answers import without_thoughts

if TYPE_CHECKING:
    from medground_bench.core.schema import Box
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["SomPromptingParameters", "som_prompting"]


@dataclass(frozen=True)
class SomPromptingParameters:
    """Parameters of ``som_prompting``.

    Attributes
    ----------
    regions : str
        What is marked: ``anatomy``, or superpixels (``slic:12``).
    marks : int
        Most marks; the largest regions get them.
    max_new_tokens : int
        Of the reply.
    """

    regions: str = "anatomy"
    marks: int = 12
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        require(self.marks >= 1 and self.max_new_tokens >= 1, "som_prompting", "limits must be at least 1")


@method(
    "som_prompting",
    family="prompting",
    parameters=SomPromptingParameters,
    needs=("generation", "localizer"),
    cost="2 generations; 1 localisation",
    reference="Yang et al., Set-of-Mark prompting, arXiv 2310.11441; ChartLens, arXiv 2505.19360",
)
def som_prompting(lvlm: Lvlm, episode: Episode, parameters: SomPromptingParameters) -> Attribution:
    """Boxes around the marked regions that the LVLM names for its own answer, in its order.

    Question-aware. ``extras["answer_kept"]`` tells whether it gives the same response to the image with the marks:
    they cover what they mark. Unknown and repeated numbers are counted; a reply without numbers reports the whole image
    with ``fallback``. Of the toy LVLMs only ``toy_prompted`` was taught to reply, about ``anatomy``.
    """
    labels, names = named_regions(parameters.regions, episode)
    kept = [k for k in range(labels.max() + 1) if not names or names[k] != REST]
    kept = sorted(sorted(kept, key=lambda k: -int((labels == k).sum()))[: parameters.marks])
    masks = [labels == k for k in kept]
    marked = draw_marks(episode.frame, masks)
    limit = max(parameters.max_new_tokens, len(episode.tokens) + 8)
    (again,) = lvlm.generate([marked], [episode.question], max_new_tokens=limit, side=None)
    reply = ask(lvlm, episode, marks_prompt(len(masks)), parameters.max_new_tokens, image=marked)
    numbers, ignored = read_numbers(without_thoughts(reply), len(masks))
    extras = {
        "reply": reply,
        "named": [names[kept[n - 1]] if names else n for n in numbers],
        "ignored": ignored,
        "marks": len(masks),
        "answer_kept": again.text.strip() == episode.response.strip(),
    }
    width, height = episode.letterbox.width, episode.letterbox.height
    if not numbers:
        return Attribution([(0.0, 0.0, float(width), float(height))], fallback=True, extras=extras)
    return Attribution(episode.letterbox.to_native([_around(masks[n - 1]) for n in numbers]), extras=extras)


def _around(mask: np.ndarray) -> Box:
    rows, cols = np.nonzero(mask)
    return float(cols.min()), float(rows.min()), float(cols.max() + 1), float(rows.max() + 1)
