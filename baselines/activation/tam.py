"""TAM: the logit lens at image tokens, less what earlier tokens explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.chosen_tokens import TOKENS, chosen_tokens
from baselines.shared.rank_weights import rank_weights
from medground_bench.attribution.method import method
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["TamParameters", "rank_gaussian", "tam", "without_interference"]


@dataclass(frozen=True)
class TamParameters:
    """Parameters of ``tam``.

    Attributes
    ----------
    context : bool
        Subtract what the tokens before explain.
    weights : {"activation", "arc"}
        How much a token before counts in that: by how much its state activates the token that is explained, or by how
        alike the two places rank the next token (Liang et al., arXiv 2509.22415; see
        :func:`~baselines.shared.rank_weights.rank_weights`).
    window : int
        Side of the rank filter in token cells, odd; 1 leaves the map as it is.
    tokens : {"all", "answer", "keywords"}
        Tokens of the response whose maps are averaged.
    """

    context: bool = True
    weights: str = "activation"
    window: int = 3
    tokens: str = "all"

    def __post_init__(self) -> None:
        require(self.window >= 1 and self.window % 2 == 1, "tam", "window must be an odd number of cells")
        require(self.weights in ("activation", "arc"), "tam", "weights must be activation or arc")
        require(self.tokens in TOKENS, "tam", f"tokens must be one of {', '.join(TOKENS)}")


@method(
    "tam",
    family="activation",
    over="frame",
    parameters=TamParameters,
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Li et al., Token activation map, ICCV 2025",
)
def tam(lvlm: Lvlm, episode: Episode, parameters: TamParameters) -> np.ndarray:
    """``mean_r F(ReLU(M_r - sigma_r I_r))`` with ``M_r[p] = ReLU(<W_U[y_r], h_p>)``, h normed last states, on the grid.

    I is the mean of the maps of earlier text tokens, weighted by how much they activate y_r, sigma its least-squares
    scale, F a rank filter. Unsigned. Under causal attention the image's states have not seen a question that follows
    them: only the context makes the map question-aware, and without it it is not. Released code explains the last token
    of the prompt in the place of the answer's first, gives NaN on constant windows, and eight bits; it scales each
    token's map by the scores of the text, too, which is left out.
    """
    import torch

    from medground_bench.lvlm.whitebox import trace_attention

    head = lvlm.model.get_output_embeddings()
    norm = getattr(lvlm.adapter.decoder(lvlm.model), "norm", None)
    if type(head) is not torch.nn.Linear or norm is None:
        raise MethodError("method 'tam' needs a plain linear head behind a final norm")
    with torch.no_grad():
        states = norm(trace_attention(lvlm, episode, [-1]).final).float()  # (S, D)
    ids = episode.inputs["input_ids"][0].tolist()
    image, first = list(episode.image_positions), episode.rows[0] + 1
    special = {*lvlm.processor.tokenizer.all_special_ids, *(ids[p] for p in image)}
    text = [p for p in range(len(ids)) if ids[p] not in special]
    # A token of the prompt is read at its own place, one of the response at the row that predicts it.
    places = [p if p < first else p - 1 for p in text]
    table = head.weight.detach()
    cap = getattr(lvlm.adapter.text_config(lvlm.config), "final_logit_softcapping", None)

    def read(logits: torch.Tensor) -> np.ndarray:
        capped = logits if cap is None else cap * torch.tanh(logits / cap)
        out: np.ndarray = capped.clamp(min=0).double().cpu().numpy()
        return out

    maps = read(table[[ids[p] for p in text]].float() @ states[image].T)  # (n, P)
    grid, found = episode.grid, []
    for t in chosen_tokens(lvlm, episode, parameters.tokens):
        row, token = episode.rows[t], episode.token_ids[t]
        own = table[token].float()
        raw = read(states[image] @ own)
        before = [k for k, p in enumerate(text) if p <= row and ids[p] != token]
        if parameters.context and before:
            at = states[[places[k] for k in before]]
            arc = parameters.weights == "arc"
            weights = rank_weights(at, states[row], table) if arc else read(at @ own)
            raw = without_interference(raw, maps[before], weights)
        found.append(rank_gaussian(grid.as_map(raw), parameters.window))
    return np.mean(found, axis=0)


def without_interference(raw: np.ndarray, contexts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``ReLU(M - sigma I)``, (P,): I the weighted mean of (n, P) context maps, sigma its least-squares scale in M."""
    mixture = weights @ contexts / (weights.sum() + 1e-8)
    size = float(mixture @ mixture)
    out: np.ndarray = np.maximum(raw - (float(raw @ mixture) / size if size else 0.0) * mixture, 0)
    return out


def rank_gaussian(values: np.ndarray, window: int) -> np.ndarray:
    """Every cell becomes a weighted mean of its window's sorted values, the middle ranks heaviest.

    Weights are ``exp(-k^2 / (2 c^2))``, k the rank's distance from the middle, c the window's coefficient of variation;
    a constant window keeps its value, one without a positive mean gives 0.
    """
    pad = window // 2
    padded = np.pad(values, pad, mode="reflect" if min(values.shape) > pad else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (window, window))
    ordered = np.sort(windows.reshape(*values.shape, -1), axis=-1)
    mean, middle = ordered.mean(-1), ordered.shape[-1] // 2
    variation = np.divide(ordered.std(-1), mean, out=np.zeros_like(mean), where=mean > 0)
    ranks = np.arange(-middle, middle + 1)
    spread = np.where(variation > 0, variation, 1.0)[..., None]
    weights = np.where(variation[..., None] > 0, np.exp(-(ranks**2) / (2 * spread**2)), ranks == 0)
    out = (weights * ordered).sum(-1) / weights.sum(-1)
    return np.where(mean > 0, out, 0.0)
